"""Spell the command that does a run again."""

import shlex
from typing import Any

_LEFT_OUT = ("plan", "overwrite")  # would only show the run, or start it anew


def command_line(hydra: Any, processes: int | None) -> str:
    """Return a command for a shell, in the folder where the run was started.

    A point of a sweep is a run of its own; a curve of an ``experiment`` is swept alone.

    Args:
        hydra: ``hydra`` of the composed configuration.
        processes: that torchrun started; None: it did not.
    """
    overrides = [one for one in hydra.overrides.task if one.partition("=")[0] not in _LEFT_OUT]
    curve = next((one.partition("=")[2] for one in overrides if one.startswith("curve=")), None)
    if curve is not None:
        its = {f"curve={curve}", *shlex.split(hydra.sweeper.curves[curve])}
        overrides = [one for one in overrides if one not in its]
        overrides.append(f"hydra.sweeper.only=[{curve}]")
    overrides = list({one.partition("=")[0]: one for one in overrides}.values())  # the last counts
    folders = [one.path for one in hydra.runtime.config_sources if one.provider == "command-line"]
    start = ["byzshield", "run"]
    if processes is not None:
        start = ["torchrun", "--standalone", f"--nproc-per-node={processes}", "-m", "byzshield_exp"]
    options = [option for folder in folders for option in ("--config-dir", folder)]
    return shlex.join([*start, *options, *overrides])
