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

from collections.abc import Sequence
from pathlib import Path

from byzshield_exp.commands.arguments import asks_for_help, near, read_keys, spelled
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import ConfigError
from byzshield_exp.files import expand_user
from byzshield_exp.notices import say

_KEYS = {"dataset": (), "dataset.root": (), "dataset.extra": ("true", "false")}
_DATASETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")  # for tab completion


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    return spelled({**_KEYS, "dataset": _DATASETS})


@exit_codes("the same command goes on")
def main(arguments: list[str]) -> None:
    """Fetch a data set, as far as it is missing."""
    if not arguments or asks_for_help(arguments):
        say(__doc__ or "")
        return
    from byzshield_exp.datasets.prepare import prepare

    prepare(*settings(arguments))


def settings(arguments: list[str]) -> tuple[str, Path, bool]:
    """Read a command line: the data set, its folder, and whether to add ``extra``.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    from byzshield_exp.datasets.official import OFFICIAL

    given = read_keys(arguments, _KEYS)
    known = ", ".join(OFFICIAL)
    if "dataset" not in given:
        raise ConfigError(f"dataset is not given, there are {known}")
    dataset, extra = given["dataset"], given.get("dataset.extra", "false")
    if dataset not in OFFICIAL:
        raise ConfigError(
            f"dataset={dataset} is none that is fetched, there are {known}{near(dataset, OFFICIAL)}"
        )
    if "dataset.extra" in given and dataset != "svhn":
        raise ConfigError(f"dataset.extra={extra}: only dataset=svhn has it")
    return dataset, expand_user(given.get("dataset.root", "data")), extra == "true"
