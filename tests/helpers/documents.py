"""Read the code blocks of README and docs/, with what a comment before a block says of its test.

A comment on the line before a block, invisible on GitHub and on the site:

    <!-- test: skip (needs a GPU) -->          not tested at all, for this reason
    <!-- test: run -->                         the commands are run as they stand
    <!-- test: run with steps=2 q=0 -->        ... their runs with these settings too
    <!-- test: output -->                      run, and print what the block says
    <!-- test: output but numbers -->          ... except for numbers
    <!-- test: file my_attack.py -->           the block is the content of this file
    <!-- test: slow, run -->                   with the slow tests

A block of commands without a comment is checked: programs, verbs, choices and keys exist, and
settings compose. A Python block without one is run. Blocks of a page that are run are run in the
order of the page, in one folder.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Tests of their own run all of these: test_own_parts_page, test_library_page, test_other_sweepers.
_ELSEWHERE = {"own_parts.md", "library.md", "trackers_and_sweepers.md"}
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in _ELSEWHERE),
]  # fmt: skip
_BLOCK = re.compile(
    r"^(?:<!-- test: ([^\n]*) -->\n)?(?P<fence>```+)(\w*)\n(.*?)^(?P=fence)$", re.M | re.S
)
_MARK = re.compile(
    r"(slow, |)(?:(skip) \(([^)]+)\)|(run)(?: with (.+))?|(output)( but numbers|)|(file) (\S+))"
)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``what`` is done with it, ``detail`` is the rest of its comment."""

    page: str
    line: int
    language: str
    text: str
    is_slow: bool
    what: str
    detail: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[tuple[list[str], list[str]]]:
        """The commands, each as words and with the lines of output below it."""
        found: list[tuple[list[str], list[str]]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            typed = line.removeprefix("$ ") if self.language == "console" else line
            if self.language == "console" and typed == line:
                found[-1][1].append(line)
            elif words := shlex.split(typed, comments=True):
                found.append((words, []))
        return found


def blocks(path: Path) -> list[Block]:
    """The blocks of a page.

    Raises:
        ValueError: for a comment that is none of the above.
    """
    text, found = path.read_text(), []
    for match in _BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 1
        mark, language = match[1], match[3]
        what, detail, is_slow = "run" if language == "python" else "check", "", False
        if mark is not None:
            read = _MARK.fullmatch(mark)
            if read is None:
                raise ValueError(f"{path.name}:{line}: '{mark}' says no test")
            is_slow, groups = bool(read[1]), [part for part in read.groups()[1:] if part]
            what, detail = groups[0], " ".join(groups[1:]).strip()
        found.append(Block(path.name, line, language, match[4], is_slow, what, detail))
    return found
