"""Ways to start the processes of a run, and what each of them is told."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from byzshield_exp.clusters import (
    AloneChannel,
    Channel,
    Node,
    Rendezvous,
    join,
    join_torchrun,
    run_ranks,
    torchrun_size,
)
from byzshield_exp.distortion import WorstCase
from byzshield_exp.errors import ConfigError, LostServer
from byzshield_exp.launch.job import Job
from byzshield_exp.notices import logged
from byzshield_exp.results.status import LOG
from byzshield_exp.training.experiment import build
from byzshield_exp.training.loop import train

_PRELOAD = ("byzshield_exp.training.loop", "byzshield_exp.networks", "byzshield_exp.datasets")
# The server imports these as soon as it has an optimizer and a recorder: 2 s of every run of a
# sweep. They look for GPUs, which must not happen before the ranks are forked.
_PRELOAD_WITHOUT_GPU = ("torch._dynamo", "torch.utils.tensorboard.summary")
_torchrun: list[Channel] = []  # to the processes that torchrun started, once they are joined


@dataclass(frozen=True)
class RankJob:
    """What every rank of a run is told, as a text.

    Attributes:
        config: plain and resolved.
        folder: of the run.
        worst: the worst case; all ranks must use the same.
        data: digest of the data that the run was described with; empty: any.
        echo: whether what is said goes to the terminal too.
        first_gpu: the GPU of rank 0; the others have the next ones.
        runs: that share this machine's cores.
    """

    config: Mapping[str, Any]
    folder: str
    worst: dict[str, Any]
    data: str = ""
    echo: bool = True
    first_gpu: int = 0
    runs: int = 1

    @property
    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def rank_job(job: Job, **place: Any) -> RankJob:
    """What the ranks of a job are told.

    Args:
        job: the run.
        place: more entries of :class:`RankJob`.
    """
    folder = str(job.folder.absolute())
    return RankJob(job.config, folder, {**job.worst}, data=job.data, **place)


def run_rank(rendezvous: Rendezvous, text: str) -> str | None:
    """Play one rank of a run, :attr:`RankJob.text`; on rank 0 the summary as JSON."""
    channel = join(rendezvous)
    try:
        summary = play(channel, text)
        return None if summary is None else json.dumps(summary)
    finally:
        channel.close()


def play(channel: Channel, text: str) -> dict[str, Any] | None:
    """Play this process's part of a run, :attr:`RankJob.text`; the server returns the summary.

    Raises:
        ConfigError: if the server's data are not those of the run; other ranks' are compared with
            the server's before the first step.
        RunError: likewise :func:`train`.
    """
    part = RankJob(**json.loads(text))
    _take_gpu(part.config, channel.rank + part.first_gpu)
    worst = WorstCase(**{**part.worst, "workers": tuple(part.worst["workers"])})
    folder = Path(part.folder)
    with logged(folder / LOG, part.echo) if channel.rank == 0 else nullcontext():
        experiment = build(part.config, worst)
        if channel.rank == 0 and part.data not in ("", experiment.dataset.digest.hex()):
            raise ConfigError(
                f"dataset={part.config['choices']['dataset']} holds other data on this machine "
                "than where the run was described"
            )
        return train(experiment, part.config, folder, channel, part.runs)


def follow_torchrun() -> None:
    """A rank above 0 under torchrun: play the jobs that rank 0 sends, until it sends none."""
    # Rank 0 may never come. A handler in Python would wait for the store's answer, so the system's.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    channel = join_torchrun()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 gets it too and ends in order
    try:
        while job := channel.hear():
            play(channel, job)
    except LostServer:
        sys.exit(1)  # the server has said why
    finally:
        channel.close()


def _take_gpu(config: Mapping[str, Any], rank: int) -> None:
    """Spread the processes of a machine over its GPUs."""
    if config["device"] == "cuda" and torch.cuda.is_available():
        place = int(os.environ["LOCAL_RANK"]) if torchrun_size() else rank
        torch.cuda.set_device(place % torch.cuda.device_count())


def in_processes(job: Job, node: Node | None = None, **place: Any) -> dict[str, Any]:
    """Train in processes of their own, even if it is one; this one watches.

    Args:
        job: the run.
        node: this machine, where there are several.
        place: more entries of :class:`RankJob`.

    Returns:
        The summary; empty on a machine without the server.
    """
    count, text = job.config["cluster"]["num_processes"], rank_job(job, **place).text
    return json.loads(run_ranks(run_rank, count, text, preload(), node) or "{}") or {}


def preload() -> tuple[str, ...]:
    """What is imported once for all ranks."""
    return _PRELOAD + (() if torch.cuda.device_count() else _PRELOAD_WITHOUT_GPU)


def in_this_process(job: Job) -> dict[str, Any]:
    """Train here; the data are checked against the job's."""
    return play(AloneChannel(), rank_job(job).text) or {}


def over_torchrun(job: Job) -> dict[str, Any]:
    """Train in the processes that torchrun started; this is rank 0."""
    if not _torchrun:
        _torchrun.append(join_torchrun())
    channel, text = _torchrun[0], rank_job(job).text
    channel.tell(text)
    return play(channel, text) or {}


def end_torchrun() -> None:
    """Let the other ranks end, which wait for a run also where there was none to do."""
    if not _torchrun and (torchrun_size() or 1) > 1:
        _torchrun.append(join_torchrun())
    while _torchrun:
        channel = _torchrun.pop()
        channel.tell("")
        channel.close()


def runner_for(job: Job) -> Callable[[Job], dict[str, Any]]:
    """How a job is done in a process that does nothing else.

    Raises:
        ConfigError: if torchrun started another number of processes.
    """
    count, world_size = job.config["cluster"]["num_processes"], torchrun_size()
    if world_size not in (None, count):
        raise ConfigError(
            f"cluster.num_processes={count} under torchrun must be its number of processes, "
            f"{world_size}"
        )
    if count == 1:
        return in_this_process
    return in_processes if world_size is None else over_torchrun
