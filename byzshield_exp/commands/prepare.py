"""``byzshield prepare``: fetches a data set, checks it and unpacks it.

    byzshield prepare dataset=cifar10
    byzshield prepare dataset=svhn dataset.root=/shared/data dataset.extra=true

What is there already is checked and not fetched again; a download that was cut starts again.
Several machines may do it in one shared folder at the same time: one fetches, the others wait.
Without internet, put the archive into the folder by hand: it is checked and unpacked.

    dataset        mnist, fashion_mnist, cifar10, cifar100 or svhn
    dataset.root   the folder for the data, as for a run (data)
    dataset.extra  true: svhn's 531,131 easier pictures too (false)
"""

import sys
from pathlib import Path

from byzshield_exp.binding import did_you_mean
from byzshield_exp.datasets.official import OFFICIAL
from byzshield_exp.datasets.prepare import prepare
from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.files import expand_user
from byzshield_exp.notices import say

_KEYS = ("dataset", "dataset.root", "dataset.extra")


def main(arguments: list[str]) -> int:
    """Fetch what is missing; returns the exit code, 2 for bad input, 1 where it failed."""
    if not arguments or arguments[0] in ("-h", "--help"):
        say(__doc__ or "")
        return 0
    try:
        prepare(*settings(arguments))
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on", 130)
    except ConfigError as error:
        return _complain(str(error), 2)
    except Exception as error:
        kind = "" if isinstance(error, RunError) else f"{type(error).__name__}: "
        return _complain(f"{kind}{error}", 1)
    return 0


def settings(arguments: list[str]) -> tuple[str, Path, bool]:
    """The data set of a command line, its folder, and whether it is with ``extra``.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not value:
            raise ConfigError(f"{argument}: arguments are key=value")
        if key not in _KEYS:
            near = did_you_mean(key, list(_KEYS))
            raise ConfigError(f"unknown key {key}, there are {', '.join(_KEYS)}{near}")
        if key in given:
            raise ConfigError(f"{argument}: {key} is given twice")
        given[key] = value
    if "dataset" not in given:
        raise ConfigError(f"dataset is not given, there are {', '.join(OFFICIAL)}")
    return given["dataset"], expand_user(given.get("dataset.root", "data")), _wants_extra(given)


def _wants_extra(given: dict[str, str]) -> bool:
    dataset, extra = given["dataset"], given.get("dataset.extra", "false")
    if dataset not in OFFICIAL:
        near = did_you_mean(dataset, list(OFFICIAL))
        raise ConfigError(
            f"dataset={dataset} is none that is fetched, there are {', '.join(OFFICIAL)}{near}"
        )
    if extra not in ("true", "false"):
        raise ConfigError(f"dataset.extra={extra} must be one of true, false")
    if "dataset.extra" in given and dataset != "svhn":
        raise ConfigError(f"dataset.extra={extra}: only dataset=svhn has it")
    return extra == "true"


def _complain(line: str, code: int) -> int:
    print(f"byzshield_exp: {line}", file=sys.stderr, flush=True)
    return code
