"""Read the parts of a docstring that has this project's form."""

import inspect
import re
import sys
from collections.abc import Callable
from itertools import takewhile
from typing import Any

_SECTION = re.compile(r"(Args|Raises|Attributes|Source|Knows|Formula):\s*(.*)")
_ENTRY = re.compile(r" {4}(\w+): ?(.*)")
_SENTENCE_END = re.compile(r"""(?<=[.!?])(?<!\bal\.)(?<!\b[A-Z]\.)\s+(?=[A-Z("`'])""")


def summary(function: Callable[..., Any]) -> str:
    """Return the first sentence."""
    return first_sentence(_plain(_text(function).partition("\n\n")[0]))


def source(function: Callable[..., Any]) -> str:
    """Return the first sentence of a function's source."""
    return first_sentence(source_text(function))


def source_text(function: Callable[..., Any]) -> str:
    """Return the ``Source:`` of a function, or else its module's."""
    module = inspect.getdoc(sys.modules[function.__module__]) or ""
    texts = (_sections(text).get("Source", "") for text in (_text(function), module))
    return next((text for text in texts if text), "")


def knows(function: Callable[..., Any]) -> str:
    """Return what an attack has to know."""
    return _sections(_text(function)).get("Knows", "").rstrip(".")


def formula(function: Callable[..., Any]) -> str:
    """Return what a rule or an attack makes of its rows."""
    return _sections(_text(function)).get("Formula", "").rstrip(".")


def details(function: Callable[..., Any]) -> str:
    """Return the paragraphs between the summary and the first section, marks removed."""
    paragraphs = _text(function).split("\n\n")[1:]
    plain = takewhile(lambda paragraph: not _SECTION.match(paragraph), paragraphs)
    return "\n\n".join(_plain(paragraph) for paragraph in plain)


def precondition(function: Callable[..., Any]) -> str:
    """Spell the exceptions of a function as conditions: ``unless X`` becomes ``needs X``."""
    raised = _entries(_text(function), "Raises").values()
    said = [text.partition("; ")[0].rstrip(".") for text in raised]
    return "; ".join(
        f"needs {text.removeprefix('unless ')}" if text.startswith("unless ") else f"fails {text}"
        for text in said
    )


def arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each argument."""
    said = _entries(_text(function), "Args")
    return {name: text.rstrip(".") for name, text in said.items()}


def first_sentence(text: str) -> str:
    """Join the lines and return the text up to the end of its first sentence."""
    return _SENTENCE_END.split(" ".join(text.split()), maxsplit=1)[0]


def _text(function: Callable[..., Any]) -> str:
    """Return its own docstring: that of a base class, torch's say, describes another part."""
    own = vars(function).get("__doc__") if isinstance(function, type) else function.__doc__
    return inspect.cleandoc(own or "")


def _sections(text: str) -> dict[str, str]:
    return {name: _plain("\n".join(lines)) for name, lines in _lines(text).items()}


def _entries(text: str, section: str) -> dict[str, str]:
    """Read a section's ``name: text`` entries; lines indented further continue the text."""
    found: dict[str, list[str]] = {}
    for line in _lines(text).get(section, []):
        entry = _ENTRY.fullmatch(line)
        if entry:
            found[entry[1]] = [entry[2]]
        elif found:
            found[next(reversed(found))].append(line)
    return {name: _plain("\n".join(lines)) for name, lines in found.items()}


def _lines(text: str) -> dict[str, list[str]]:
    """Return the lines of each section; an empty line ends a section."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        start = _SECTION.match(line)
        if start:
            current = found[start[1]] = [start[2]]
        elif not line.strip():
            current = None
        elif current is not None:
            current.append(line)
    return found


def _plain(text: str) -> str:
    """Join the lines and remove the marks of reStructuredText."""
    return re.sub(r":\w+:`([^`]*)`", r"\1", " ".join(text.split())).replace("``", "")
