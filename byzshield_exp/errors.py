"""The errors that end a run early, and their one-line text."""


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
