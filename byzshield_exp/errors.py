"""The two ways in which a run ends early."""


class ConfigError(ValueError):
    """The configuration cannot run. One line: the key, its value, the bound."""


class RunError(RuntimeError):
    """A run that had started could not go on. One line; takes one argument so that it pickles."""
