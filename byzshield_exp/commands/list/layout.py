"""Lay entries out as text of a given width."""

import textwrap
from collections.abc import Iterator, Sequence

from byzshield_exp.commands.list.entries import Entry

_PROPERTIES = (
    "has permutation: the order of rows does not matter; equal rows: of equal rows it makes that "
    "row; translation, scale: it follows when all rows are shifted or scaled; bound: its distance "
    "to the honest mean is bounded"
)
_FACT = 11  # column where the text of a fact begins
_LONGEST = 44  # rightmost column where a parameter's text begins


def group_text(group: str, entries: Sequence[Entry], width: int) -> str:
    """Lay out all entries of a group."""
    count = f"{len(entries)} choice{'s' * (len(entries) != 1)}"
    lines = [f"{group}: {count}, chosen by {group}=NAME"]
    if any(entry.properties for entry in entries):
        lines += textwrap.wrap(_PROPERTIES, width)
    for entry in entries:
        lines += ["", *_block(entry, width)]
    return "\n".join(lines)


def entry_text(entry: Entry, width: int) -> str:
    """Lay out one entry, with the whole text of its file and its function."""
    whole = [f"  {line}".rstrip() for line in entry.text.splitlines()]
    return "\n".join([*_block(entry, width), "", *whole])


def _block(entry: Entry, width: int) -> Iterator[str]:
    yield entry.name
    yield from _wrapped("  ", entry.line, "  ", width)
    if entry.summary not in ("", entry.line):
        name = entry.function.rpartition(".")[2]
        yield from _wrapped(f"  {name}: ", entry.summary, "    ", width)
    yield from _parameters(entry, width)
    fact = "needs" if entry.precondition.startswith("needs ") else "fails"
    facts = {
        "implies": " ".join(entry.implies),
        "kind": entry.kind + (f"; has {', '.join(entry.properties)}" if entry.properties else ""),
        "formula": entry.formula,
        "knows": entry.knows,
        fact: entry.precondition.removeprefix(f"{fact} "),
        "source": entry.source,
    }
    for fact, text in facts.items():
        if text:
            yield from _wrapped(f"  {fact}".ljust(_FACT), text, " " * _FACT, width)


def _parameters(entry: Entry, width: int) -> Iterator[str]:
    typed = [f"  {key.name}={key.value}  " for key in entry.parameters]
    column = min(_LONGEST, max(map(len, typed), default=0))
    for text, key in zip(typed, entry.parameters, strict=True):
        if len(text) > column and key.comment:
            yield text.rstrip()
            text = ""
        yield from _wrapped(text.ljust(column), key.comment, " " * column, width)


def _wrapped(start: str, text: str, indent: str, width: int) -> list[str]:
    """Wrap a text after a start, with its further lines after an indent."""
    return textwrap.wrap(
        text,
        max(width, len(indent) + 30),
        initial_indent=start,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    ) or [start.rstrip()]
