"""``byzshield reproduce``: figures and tables of the papers, ours beside theirs.

    byzshield reproduce list                             what there is, and how long it takes
    byzshield reproduce table5
    byzshield reproduce fig02,fig06 'seed=range(3)'
    byzshield reproduce l46 dataset.root=FOLDER
    byzshield reproduce byzshield docs=docs/results.md   writes a page of them all

Names of groups stand for all they have: tables, byzshield, detox, l46, btard, all.

    scale  smoke, thin or paper: the size of the runs (smoke)
    out    folder of pictures and tables (OUTPUT_DIR/reproduced)
    docs   a page of Markdown to write

Everything else goes to the runs, which are those of `byzshield run experiment=...`: what is
finished is not run again. So 'seed=range(3)', hydra.launcher.runs=2, output_dir=, dataset.root=,
steps=, plan=true ...
"""

import os
import shlex
from collections.abc import Sequence

from byzshield_exp.commands.arguments import asks_for_help, refuse_options, split_keys
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.commands.reproduce.contents import check_data, contents, named, names
from byzshield_exp.commands.reproduce.published import SCALES
from byzshield_exp.errors import ConfigError
from byzshield_exp.files import expand_user
from byzshield_exp.notices import say

_OWN = ("scale", "out", "docs")
_OFTEN = ("seed=", "dataset.root=", "output_dir=", "hydra.launcher.runs=", "plan=true")


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    if not before:
        return ["list", *names()]
    return [*(f"scale={scale}" for scale in SCALES), "out=", "docs=", *_OFTEN]


@exit_codes("the same command goes on")
def main(arguments: list[str]) -> int:
    """Do the runs of what was named, and put them beside the papers.

    Returns:
        The exit code: 0, or that of the first figure whose runs have failed.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    if asks_for_help(arguments) or arguments in ([], ["list"]):
        say((__doc__ or "") if asks_for_help(arguments) else contents())
        return 0
    wanted, overrides = named(arguments[0]), arguments[1:]
    refuse_options(overrides)
    given = split_keys(overrides)
    scale = given.get("scale", "smoke")
    if scale not in SCALES:
        raise ConfigError(f"scale={scale} must be one of {', '.join(SCALES)}")
    if "RANK" in os.environ:
        raise ConfigError("reproduce under torchrun: leave it out, cluster=processes has its ranks")
    check_data(wanted, scale, given)
    from byzshield_exp.commands.reproduce.book import Order, reproduce

    order = Order(
        command=shlex.join(["byzshield", "reproduce", *arguments]),
        wanted=tuple(wanted),
        scale=scale,
        overrides=tuple(one for one in overrides if one.partition("=")[0] not in _OWN),
        out=expand_user(given.get("out") or f"{given.get('output_dir', 'outputs')}/reproduced"),
        page=expand_user(given["docs"]) if "docs" in given else None,
    )
    return reproduce(order)
