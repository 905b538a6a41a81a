"""Lines for a person, and how often: a fault of the disk is told once, and its end once."""

import sys
import time
from collections.abc import Iterator
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
    """Within, the lines of this thread also go to a file, each with its time (UTC).

    Args:
        path: is appended to.
        echo: whether they still go to the terminal.
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
    """A line on stdout; on a full disk it is lost, and the run goes on."""
    note(line)
    if is_echoed():
        with suppress(OSError):
            print(line, flush=True)


def warn(line: str) -> None:
    """A warning on stderr, likewise."""
    complain(f"warning: {line}")


def complain(text: str) -> None:
    """A text on stderr, likewise."""
    text = text.rstrip("\n")
    note(text)
    if is_echoed():
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Lines for the file of :func:`logged` alone."""
    log = _log.get()
    if log is None:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with suppress(OSError), log.path.open("a") as file:
        file.write("".join(f"{now} {line}\n" for line in text.splitlines()))
