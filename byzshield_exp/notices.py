"""Lines for a person, and how often: a fault of the disk is told once, and its end once."""

import sys
from collections.abc import Callable
from contextlib import suppress


def say(line: str) -> None:
    """A line on stdout; on a full disk it is lost, and the run goes on."""
    with suppress(OSError):
        print(line, flush=True)


def warn(line: str) -> None:
    """A warning on stderr, likewise."""
    with suppress(OSError):
        print(f"warning: {line}", file=sys.stderr, flush=True)


class Outage:
    """The time in which something cannot be written: one line when it begins, one when it ends.

    Args of the constructor:
        what: is written, with an article.

    Attributes:
        what: is written.
        error: of the last attempt; None while all is well.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.error: OSError | None = None

    def attempt(self, step: int, write: Callable[[], object]) -> bool:
        """Call ``write`` and say whether it got through without an ``OSError``."""
        was, self.error = self.error, None
        try:
            write()
        except OSError as error:
            self.error = error
            if was is None:
                warn(
                    f"step {step}: {self.what} could not be written ({error}): the run goes on "
                    "and tries again"
                )
            return False
        if was is not None:
            warn(f"step {step}: {self.what} could be written again")
        return True
