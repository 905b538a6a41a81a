"""Print lines for the user, and copy them to a run's log file."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Log:
    path: Path
    echo: bool


_log: ContextVar[_Log | None] = ContextVar("log", default=None)


@contextmanager
def logged(path: Path, echo: bool = True) -> Iterator[None]:
    """Copy the lines of this thread to a file, each with its time (UTC).

    Args:
        path: the file; lines are appended.
        echo: whether the lines still go to the terminal.
    """
    token = _log.set(_Log(path, echo))
    try:
        yield
    finally:
        _log.reset(token)


def is_echoed() -> bool:
    """Whether lines go to the terminal."""
    log = _log.get()
    return log is None or log.echo


def say(line: str) -> None:
    """Print a line on stdout; if that fails, as on a full disk, the line is lost."""
    note(line)
    if is_echoed():
        with suppress(OSError):
            print(line, flush=True)


def warn(line: str) -> None:
    """Print a warning on stderr."""
    complain(f"warning: {line}")


def complain(text: str) -> None:
    """Print a text on stderr; if that fails, the text is lost."""
    text = text.rstrip("\n")
    note(text)
    if is_echoed():
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Write lines to the file of :func:`logged` only."""
    log = _log.get()
    if log is None:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with suppress(OSError), log.path.open("a") as file:
        file.write("".join(f"{now} {line}\n" for line in text.splitlines()))


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows of cells as lines whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
