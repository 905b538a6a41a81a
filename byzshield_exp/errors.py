"""The ways in which a run ends early, and the first line of an error."""


class ConfigError(ValueError):
    """The configuration cannot run. One line: the key, its value, the bound."""


class InUse(ConfigError):
    """Another process holds the folder of the run. One line."""


class RunError(RuntimeError):
    """A run that had started could not go on. One line; takes one argument so that it pickles.

    Attributes:
        rank: that failed.
    """

    rank: int = 0


class TooFewReplicas(RunError):
    """So many workers are gone that a file has no majority; the step was not done."""


class LostServer(RunError):
    """A worker's connection to the server is gone; the server knows why."""


class Stopped(Exception):
    """The run was asked to stop; what it had done is in a checkpoint. One line."""


class Queued(Exception):
    """A run that nobody here waits for; the same command looks again. One line."""


def printable(text: str) -> str:
    """A text from another machine, without what a terminal would take for a command."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; its type where it says nothing."""
    lines = (printable(line) for line in str(error).splitlines() if line.strip())
    return next(lines, type(error).__name__)
