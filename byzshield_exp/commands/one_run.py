"""Do the run of a command line, or one point of a sweep, in this process."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from byzshield_exp.launch.job import Job, announce, describe, load, perform
from byzshield_exp.launch.ranks import in_this_process, runner_for
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.outcome import final_accuracy
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.loop import train


def do_run(config: dict[str, Any], name: str, found: Callable[[Path], None]) -> float | None:
    """Check, announce and do a run; with ``plan`` only announce it.

    Args:
        config: plain and resolved configuration.
        name: name of the run's folder.
        found: is called with the run's folder before it begins.

    Returns:
        The final accuracy, in [0, 1]; None with ``plan``.

    Raises:
        ConfigError: before any worker starts.
        RunError: when a started run cannot go on.
    """
    job, experiment = describe(config, name)
    found(job.folder)
    if config["plan"]:
        folder = RunFolder(job.folder)
        folder.inspect(config, job.data, job.code)
        announce(job, folder)
        return None
    do = runner_for(job)
    if do is in_this_process:
        do = partial(_train, experiment)
    else:
        del experiment  # free its data: each rank loads its own
    return final_accuracy(perform(job, do))[1]


def _train(experiment: Experiment, job: Job) -> dict[str, Any]:
    return train(experiment, job.config, job.folder) or {}


def do_point(path: Path, found: Callable[[Path], None]) -> float:
    """Do one job of our sweeper for a launcher that is not ours.

    Args:
        path: the job file.
        found: is called with the run's folder before it begins.

    Returns:
        The final accuracy, in [0, 1].
    """
    job = load(path)
    found(job.folder)
    return final_accuracy(perform(job, runner_for(job)))[1]
