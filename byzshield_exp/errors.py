"""The ways in which a run ends early."""


class ConfigError(ValueError):
    """The configuration cannot run. One line: the key, its value, the bound."""


class RunError(RuntimeError):
    """A run that had started could not go on. One line; takes one argument so that it pickles."""


class TooFewReplicas(RunError):
    """So many workers are gone that a file has no majority; the step was not done."""


class LostServer(RunError):
    """A worker's connection to the server is gone; the server knows why."""


class Stopped(Exception):
    """The run was asked to stop; what it had done is in a checkpoint. One line."""
