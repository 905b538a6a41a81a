"""The one loop, on every rank of a run."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from byzshield_exp import interrupts
from byzshield_exp.clusters import (
    Cluster,
    Group,
    cluster_of,
)
from byzshield_exp.errors import Stopped, TooFewReplicas
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.learner import Learner
from byzshield_exp.training.protocol import ParameterServer
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
        experiment.seed if experiment.is_stochastic else None, config["precision"],
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
        server = Learner(experiment, protocol, config, folder) if cluster.is_server else None
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
    experiment: Experiment, cluster: Cluster, protocol: ParameterServer, server: Learner | None
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


def _parallel_files(processes: int, config: Mapping[str, Any]) -> int:
    """How many files this process computes at a time: its share of the cores; on a GPU one."""
    if config["device"] == "cuda":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    threads: int = config["threads"]
    return max(1, (cores or 1) // max(1, ranks - 1) // threads)
