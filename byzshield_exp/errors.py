"""The errors that end a run early, and their one-line text."""

import os
import sysconfig
from contextlib import suppress
from pathlib import Path
from traceback import walk_tb

_ROOT = Path(__file__).parents[1]
_OURS = tuple(f"{_ROOT / name}{os.sep}" for name in ("byzshield_exp", "hydra_plugins"))
_INSTALLED = ("site-packages", "dist-packages")


class ConfigError(ValueError):
    """The configuration cannot run. One line: the key, its value, the bound."""


class InUse(ConfigError):
    """Another process holds the folder of the run. One line."""


class RunError(RuntimeError):
    """A run that had started could not go on. One line; takes one argument so that it pickles.

    Attributes:
        rank: the rank that failed.
    """

    rank: int = 0


class PartError(RunError):
    """A part of the user's own raised what it must not, or returned what is none. One line."""


class TooFewReplicas(RunError):
    """Too many workers are gone for a file to have a majority; the step was not done."""


class LostRank(RunError):
    """A rank that the run cannot do without is gone or late; the step was not done."""


class LostServer(RunError):
    """A worker lost its connection to the server, which reports the reason."""


class Stopped(Exception):
    """The run was asked to stop, and its progress is in a checkpoint. One line."""


class Queued(Exception):
    """A run is in a queue, and this process does not wait for it. One line."""


def printable(text: str) -> str:
    """Replace the control characters of a text from another machine: terminals act on them."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its type if it has no text."""
    lines = (printable(line) for line in str(error).splitlines() if line.strip())
    return next(lines, type(error).__name__)


def located(error: BaseException) -> str:
    """Return :func:`first_line`, and where the user's own code raised the error, if it did."""
    place = place_of(error)
    return f"{first_line(error)} ({place})" if place else first_line(error)


def typed(error: BaseException) -> str:
    """Return :func:`located` after the type of the error."""
    return f"{type(error).__name__}: {located(error)}"


def place_of(error: BaseException) -> str:
    """Say where the user's own code raised an error: ``my_rules.py:7 in near_median``.

    That is the innermost frame of a function that this package has called and that is neither of
    this package nor of an installed one nor of Python; ``""`` if there is none, or if the error is
    this package's own word on the run.
    """
    if isinstance(error, RunError | Stopped):
        return ""
    is_called, place = False, ""
    for frame, line in walk_tb(error.__traceback__):
        path = frame.f_code.co_filename
        if path.startswith(_OURS):
            is_called = True
        elif is_called and not _is_installed(path):
            place = f"{_from_here(path)}:{line} in {frame.f_code.co_qualname}"
    return place


def _is_installed(path: str) -> bool:
    library = sysconfig.get_path("stdlib") + os.sep
    return path.startswith(("<", library)) or any(part in _INSTALLED for part in Path(path).parts)


def _from_here(path: str) -> str:
    """Spell a path from the current folder on, if it lies below."""
    with suppress(ValueError, OSError):
        return str(Path(path).relative_to(Path.cwd()))
    return path
