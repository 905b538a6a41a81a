"""Do the run of a command line, or one point of a sweep, in this process."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from byzshield_exp.errors import ConfigError, PartError, place_of
from byzshield_exp.files import expand_user
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
from byzshield_exp.notices import logged, note, warn
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.outcome import final_accuracy
from byzshield_exp.results.status import LOG
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
    missing = missing_data(config) if config["plan"] else ""
    where = LauncherTraits(fetches_data=True) if missing else None
    with _traceback_in(expand_user(config["output_dir"]) / name / LOG):
        job, experiment = describe(config, name, where)
    found(job.folder)
    if config["plan"]:
        if missing:
            warn(missing)
        folder = RunFolder(job.folder)
        folder.inspect(job.config, job.data, job.code)
        announce(job, folder)
        return None
    do = runner_for(job)
    if do is in_this_process:
        do = partial(_train, experiment)
    else:
        del experiment  # free its data: each rank loads its own
    return final_accuracy(perform(job, do))[1]


@contextmanager
def _traceback_in(log: Path) -> Iterator[None]:
    """Write the traceback of an error in the user's own code to the log of the run."""
    try:
        yield
    except Exception as error:
        if isinstance(error, PartError) or (not isinstance(error, ConfigError) and place_of(error)):
            with suppress(OSError):
                log.parent.mkdir(parents=True, exist_ok=True)
            with logged(log, echo=False):
                note(traceback.format_exc())
        raise


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
