"""Read the arguments of verbs: ``key=value``, and options that begin with dashes."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from byzshield_exp.errors import ConfigError

Keys = Mapping[str, tuple[str, ...]]  # the choices of each key; empty: any value


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the arguments begin with ``--help``."""
    return arguments[:1] in (["-h"], ["--help"])


def read_keys(arguments: Iterable[str], keys: Keys) -> dict[str, str]:
    """Read ``key=value`` arguments, of which each key must be known and given once.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    given = split_keys(arguments)
    for key, value in given.items():
        check_key(key, keys)
        if not value:
            raise ConfigError(f"{key}=: arguments are key=value")
        if keys[key] and value not in keys[key]:
            raise ConfigError(f"{key}={value} must be one of {', '.join(keys[key])}")
    return given


def split_keys(arguments: Iterable[str]) -> dict[str, str]:
    """Read ``key=value`` arguments with any keys.

    Raises:
        ConfigError: if an argument is something else or a key is given twice.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument}: arguments are key=value")
        if key in given:
            raise ConfigError(f"{argument}: {key} is given twice")
        given[key] = value
    return given


def check_key(key: str, known: Collection[str], where: str = "") -> None:
    """Refuse an unknown key.

    Args:
        key: the key, as typed.
        known: all known keys.
        where: beginning of the message.

    Raises:
        ConfigError: if the key is unknown; it names the known ones.
    """
    if key not in known:
        there = ", ".join(known)
        raise ConfigError(f"{where}unknown key {key}, there are {there}{near(key, known)}")


def near(name: str, known: Iterable[str]) -> str:
    """Call :func:`did_you_mean`; its module takes 0.1 s to import, so only for wrong names."""
    from byzshield_exp.binding import did_you_mean

    return did_you_mean(name, list(known))


def seconds(key: str, text: str) -> float:
    """Read a key's value as a time in seconds.

    Raises:
        ConfigError: if the value is not finite and above 0.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{key}={text} must be a finite number of seconds above 0")
    return value


def take_flag(arguments: list[str], flag: str) -> bool:
    """Remove a flag from the arguments; return whether it was there."""
    found = flag in arguments
    arguments[:] = [argument for argument in arguments if argument != flag]
    return found


def take_option(arguments: list[str], *names: str) -> str | None:
    """Remove an option and its value (``-x VALUE``, ``-x=VALUE``); return the value.

    Raises:
        ConfigError: if the option has no value.
    """
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name not in names:
            continue
        if not equals and at + 1 < len(arguments):
            value = arguments.pop(at + 1)
        if not value:
            raise ConfigError(f"{name} needs a value")
        del arguments[at]
        return value
    return None


def refuse_options(arguments: Iterable[str], *known: str) -> None:
    """Refuse an argument that begins with a dash.

    Raises:
        ConfigError: if there is one; it names the known options.
    """
    for argument in arguments:
        if argument.startswith("-"):
            there = f"there are {', '.join(known)}" if known else "there are none"
            raise ConfigError(f"unknown option {argument}, {there}{near(argument, known)}")


def spelled(keys: Keys) -> list[str]:
    """List ``key=choice`` for every choice, or ``key=`` for any value: for tab completion."""
    return [f"{key}={choice}" for key, choices in keys.items() for choice in choices or ("",)]
