"""Turn errors of Hydra and OmegaConf into one line with the key and what is allowed."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from byzshield_exp.binding import did_you_mean
from byzshield_exp.commands.config import Config
from byzshield_exp.commands.keys import config_dir, explained, meant_key
from byzshield_exp.errors import ConfigError


@contextmanager
def as_config_errors(arguments: Sequence[str] = ()) -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf into our own.

    Args:
        arguments: the command line, whose choices have keys that may be meant.

    Raises:
        ConfigError: in one line, with the key and what is allowed.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error, arguments)) from error


def _one_line(error: BaseException, arguments: Sequence[str]) -> str:
    """Spell an error in one line; its causes tell what Hydra was doing."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, MissingConfigException) and cause.options is not None:
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            near = did_you_mean(choice, list(cause.options))
            return f"{group}={choice}: no such choice, there are {', '.join(cause.options)}{near}"
    if isinstance(error, OverrideParseException):
        if meant := explained(error.override, config_dir(arguments)):
            return f"{error.override}: arguments are key=value; {meant}"
        quoted = "'key=\"value\"'"
        return f"{error.override}: not understood; a value with odd characters needs {quoted}"
    if "'curves' not in" in str(error):
        return "hydra/sweeper: an experiment with curves needs hydra/sweeper=byzshield"
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return _key_error(error, cause, arguments)
    return " ".join(str(error).split())


def _key_error(
    error: BaseException, cause: OmegaConfBaseException, arguments: Sequence[str]
) -> str:
    key = str(cause.full_key)
    reason = (cause.msg or str(cause)).strip().splitlines()[0]
    if isinstance(cause, MissingMandatoryValue):
        return f"{key} is not given"
    if "is not in struct" in reason or "not in '" in reason:
        typed = re.search(r"override '([^']*)'", str(error))
        return _unknown_key(typed.group(1) if typed else key, cause, arguments)
    return f"{key}: {reason}"


def _unknown_key(name: str, cause: OmegaConfBaseException, arguments: Sequence[str]) -> str:
    known = [entry.name for entry in fields(Config)]
    parent = "hydra.launcher" if name.startswith("hydra.launcher.") else name.partition(".")[0]
    if "." not in name or parent not in (*known, "hydra.launcher"):
        return f"unknown key {name}{meant_key(name, arguments)} (--help lists all keys)"
    node = cause.parent_node if isinstance(cause.parent_node, DictConfig) else {}
    options = [str(option) for option in node if option != "_target_"]
    near = did_you_mean(name.rpartition(".")[2], options)
    return f"unknown key {name}, {parent} has {', '.join(options) or 'no arguments'}{near}"
