"""The one loop, on every rank of a run."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from byzshield_exp import interrupts
from byzshield_exp.clusters import Cluster, Group, Rendezvous, cluster_of, join, join_torchrun
from byzshield_exp.distortion import WorstCase
from byzshield_exp.errors import LostServer, Stopped, TooFewReplicas
from byzshield_exp.experiment import Experiment, build
from byzshield_exp.gradients import TrueGradients
from byzshield_exp.protocols import ParameterServer
from byzshield_exp.server import Server
from byzshield_exp.votes import reads_digests


def train(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    group: Group | None = None,
) -> dict[str, Any] | None:
    """Train in this process; the server returns the summary that it wrote, other ranks None.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        folder: of the run; only the server writes to it.
        group: this process's place; None is the simulation: this process plays everybody.

    Raises:
        TooFewReplicas: if too many workers are gone; what was done is in a checkpoint.
        Stopped: at SIGTERM, likewise.
        RunError: if the run cannot go on for another reason.
    """
    torch.set_num_threads(config["threads"])
    group = group or Group()
    truth = TrueGradients(
        experiment.network, experiment.dataset, experiment.batches,
        experiment.assignment.num_files, _parallel_files(group.world_size, config),
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


def describe_job(config: Mapping[str, Any], folder: Path, worst: WorstCase) -> str:
    """A run as a text that every rank understands.

    The worst case is part of it: a search that was ended would end elsewhere on another rank.
    """
    return json.dumps({"config": config, "folder": str(folder.absolute()), "worst": asdict(worst)})


def run_rank(rendezvous: Rendezvous, job: str) -> str | None:
    """Play one rank of a job; on rank 0 the summary as JSON."""
    group = join(rendezvous)
    try:
        return play(group, job)
    finally:
        group.close()


def play(group: Group, job: str) -> str | None:
    """Play this process's part of a job, :func:`describe_job`'s text, in a group it has joined."""
    work = json.loads(job)
    config = work["config"]
    _take_gpu(config, group.rank)
    worst = WorstCase(**{**work["worst"], "workers": tuple(work["worst"]["workers"])})
    summary = train(build(config, worst), config, Path(work["folder"]), group)
    return None if summary is None else json.dumps(summary)


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
        by_torchrun = "RANK" in os.environ and "WORLD_SIZE" in os.environ
        place = int(os.environ["LOCAL_RANK"]) if by_torchrun else rank
        torch.cuda.set_device(place % torch.cuda.device_count())


def _parallel_files(world_size: int, config: Mapping[str, Any]) -> int:
    """How many files this process computes at a time: its share of the cores; on a GPU one."""
    if config["device"] == "cuda":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    threads: int = config["threads"]
    return max(1, (cores or 1) // max(1, ranks - 1) // threads)
