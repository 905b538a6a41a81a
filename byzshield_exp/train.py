"""The one loop, on every rank of a run."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from byzshield_exp import interrupts
from byzshield_exp.clusters import (
    Cluster,
    Group,
    Rendezvous,
    cluster_of,
    join,
    join_torchrun,
    torchrun_size,
)
from byzshield_exp.distortion import WorstCase
from byzshield_exp.errors import ConfigError, LostServer, Stopped, TooFewReplicas
from byzshield_exp.experiment import Experiment, build
from byzshield_exp.gradients import TrueGradients
from byzshield_exp.notices import logged
from byzshield_exp.protocols import ParameterServer
from byzshield_exp.server import Server
from byzshield_exp.status import LOG
from byzshield_exp.votes import reads_digests


def train(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    group: Group | None = None,
    runs: int = 1,
) -> dict[str, Any] | None:
    """Train in this process; the server returns the summary that it wrote, other ranks None.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        folder: of the run; only the server writes to it.
        group: this process's place; None is the simulation: this process plays everybody.
        runs: that share this machine's cores.

    Raises:
        TooFewReplicas: if too many workers are gone; what was done is in a checkpoint.
        Stopped: at SIGTERM, likewise.
        RunError: if the run cannot go on for another reason.
    """
    torch.set_num_threads(config["threads"])
    group = group or Group()
    truth = TrueGradients(
        experiment.network, experiment.dataset, experiment.batches,
        experiment.assignment.num_files, _parallel_files(group.world_size * runs, config),
        experiment.seed if experiment.draws else None, config["precision"],
    )  # fmt: skip
    options = config["cluster"]
    cluster = cluster_of(
        group, experiment.assignment, reads_digests(experiment.vote), options["worker_timeout"],
        int(options["bucket_mib"] * 2**20),
    )  # fmt: skip
    if cluster.world_size == 1:
        cluster.keep_rows_in(truth.table)
    protocol = ParameterServer(
        experiment, cluster, truth, options["majority_of"], profiles=bool(config["profile"])
    )
    server = None
    try:
        server = Server(experiment, protocol, config, folder) if cluster.is_server else None
        with interrupts.heard() if server else nullcontext():  # workers wait for the server's word
            return _loop(experiment, cluster, protocol, server)
    except (Stopped, TooFewReplicas) as error:
        if server:
            raise type(error)(f"{error}; {server.save_early()}") from error
        raise
    finally:
        cluster.end()
        if server:
            server.close()


def _loop(
    experiment: Experiment, cluster: Cluster, protocol: ParameterServer, server: Server | None
) -> dict[str, Any] | None:
    protocol.check_replicas()
    while (
        step := cluster.begin_step(experiment.flat.state, server.next_step if server else None)
    ) is not None:
        interrupts.check()
        update, report = protocol.step(step)
        if server and update is not None and report is not None:
            server.finish_step(update, report)
    return server.finish() if server else None


@dataclass(frozen=True)
class Part:
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


def run_rank(rendezvous: Rendezvous, text: str) -> str | None:
    """Play one rank of a run, :attr:`Part.text`; on rank 0 the summary as JSON."""
    group = join(rendezvous)
    try:
        summary = play(group, text)
        return None if summary is None else json.dumps(summary)
    finally:
        group.close()


def play(group: Group, text: str) -> dict[str, Any] | None:
    """Play this process's part of a run, :attr:`Part.text`; the server returns the summary.

    Raises:
        ConfigError: if the server's data are not those of the run; other ranks' are compared with
            the server's before the first step.
        RunError: likewise :func:`train`.
    """
    part = Part(**json.loads(text))
    _take_gpu(part.config, group.rank + part.first_gpu)
    worst = WorstCase(**{**part.worst, "workers": tuple(part.worst["workers"])})
    folder = Path(part.folder)
    with logged(folder / LOG, part.echo) if group.rank == 0 else nullcontext():
        experiment = build(part.config, worst)
        if group.rank == 0 and part.data not in ("", experiment.dataset.digest.hex()):
            raise ConfigError(
                f"dataset={part.config['choices']['dataset']} holds other data on this machine "
                "than where the run was described"
            )
        return train(experiment, part.config, folder, group, part.runs)


def follow_torchrun() -> None:
    """A rank above 0 under torchrun: play the jobs that rank 0 sends, until it sends none."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 gets it too and ends in order
    group = join_torchrun()
    try:
        while job := group.hear():
            play(group, job)
    except LostServer:
        sys.exit(1)  # the server has said why
    finally:
        group.close()


def _take_gpu(config: Mapping[str, Any], rank: int) -> None:
    """Spread the processes of a machine over its GPUs."""
    if config["device"] == "cuda" and torch.cuda.is_available():
        place = int(os.environ["LOCAL_RANK"]) if torchrun_size() else rank
        torch.cuda.set_device(place % torch.cuda.device_count())


def _parallel_files(processes: int, config: Mapping[str, Any]) -> int:
    """How many files this process computes at a time: its share of the cores; on a GPU one."""
    if config["device"] == "cuda":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    threads: int = config["threads"]
    return max(1, (cores or 1) // max(1, ranks - 1) // threads)
