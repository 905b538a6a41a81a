"""Do the run of a command line, or one point of a sweep, in this process."""

from functools import partial
from pathlib import Path
from typing import Any

from byzshield_exp.launch.job import (
    Job,
    LauncherTraits,
    announce,
    describe,
    load,
    missing_data,
    perform,
)
from byzshield_exp.launch.ranks import in_this_process, runner_for
from byzshield_exp.notices import warn
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.outcome import final_accuracy
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.loop import train


def do_run(config: dict[str, Any], name: str) -> None:
    """Check, announce and do a run; with ``plan`` only announce it.

    Args:
        config: plain and resolved configuration.
        name: name of the run's folder.

    Raises:
        ConfigError: before any worker starts.
        RunError: when a started run cannot go on.
    """
    missing = missing_data(config) if config["plan"] else ""
    job, experiment = describe(config, name, LauncherTraits(fetches_data=True) if missing else None)
    if config["plan"]:
        if missing:
            warn(missing)
        folder = RunFolder(job.folder)
        folder.inspect(config, job.data, job.code)
        announce(job, folder)
        return
    do = runner_for(job)
    if do is in_this_process:
        do = partial(_train, experiment)
    else:
        del experiment  # free its data: each rank loads its own
    perform(job, do)


def _train(experiment: Experiment, job: Job) -> dict[str, Any]:
    return train(experiment, job.config, job.folder) or {}


def do_point(path: Path) -> float | None:
    """Do one job of a sweep for a launcher that is not ours; return the final accuracy."""
    job = load(path)
    return final_accuracy(perform(job, runner_for(job)))[1]
