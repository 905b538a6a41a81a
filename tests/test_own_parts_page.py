"""``docs/own_parts.md``: its code is the examples' code, and its commands run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "own_parts.md").read_text()
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
BLOCKS = _BLOCK.findall(PAGE)
COMMANDS = [block.strip() for kind, block in BLOCKS if kind == "sh"]


def test_the_code_of_the_page_is_that_of_the_examples():
    shown = {code for kind, code in BLOCKS if kind == "python"}
    files = {path.read_text() for path in EXAMPLES.glob("my_*.py")}
    assert shown == files
    for code in files:  # small: one idea each
        assert len(code.splitlines()) <= 22


def test_every_example_has_a_choice_of_its_own_and_a_command():
    targets = {
        line.split()[1]
        for path in EXAMPLES.glob("conf/*/*.yaml")
        for line in path.read_text().splitlines()
        if line.startswith("_target_: ")
    }
    assert {target.partition(".")[0] for target in targets} == {
        path.stem for path in EXAMPLES.glob("my_*.py")
    }
    (sweep,) = [command for command in COMMANDS if " -m " in command]
    for target in targets:
        assert any(f"._target_={target}" in command for command in COMMANDS)
        assert f"={target.partition('.')[2]}" in sweep or "SignDescent" in target


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    COMMANDS,
)
def test_the_commands_of_the_page_run(command, tmp_path):
    """From the folder of the examples, for two steps."""
    program, verb, *arguments = command.split()
    assert (program, verb) == ("byzshield", "run")
    script = "import sys; sys.path.pop(0); from byzshield_exp.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, verb, *arguments, "steps=2", f"output_dir={tmp_path}"],
        cwd=EXAMPLES, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*/summary.json"))) == (2 if "-m" in arguments else 1)


def test_links_of_the_page_resolve():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        assert not file or (ROOT / "docs" / file).exists(), target
        assert not anchor or f"## {anchor.replace('-', ' ').capitalize()}\n" in PAGE, target
