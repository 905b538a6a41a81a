"""Who plays whom in a run, and the gradients that this process computes with its share of it."""

import os
from collections.abc import Mapping
from typing import Any

from byzshield_exp.clusters import Channel, Seats
from byzshield_exp.clusters.backend import server_plays
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gpu_memory import GpuMemory, gpu_need
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.replay import cuda_graph


def seats_and_truth(
    experiment: Experiment,
    config: Mapping[str, Any],
    channel: Channel,
    runs: int,
    gpu_sharers: int,
) -> tuple[Seats, TrueGradients]:
    """Seat the workers, and make what computes gradients in this process.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        channel: what connects this process with the others.
        runs: that share this machine's cores.
        gpu_sharers: processes that share this one's GPU.

    Raises:
        ConfigError: if a GPU has too little memory.
    """
    plays = server_plays(config, channel.backend)
    seats = Seats(experiment.assignment, channel.world_size, plays)
    if config["device"] == "cuda":
        need = gpu_need(experiment, config, seats, channel.rank, channel.backend)
        need.check(GpuMemory.here(), gpu_sharers)
    return seats, true_gradients(experiment, config, len(seats.players) * runs)


def true_gradients(experiment: Experiment, config: Mapping[str, Any], ranks: int) -> TrueGradients:
    """Make what computes gradients in this process.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        ranks: processes that share this machine's cores.
    """
    return TrueGradients(
        experiment.network, experiment.dataset, experiment.batches,
        experiment.assignment.num_files, _parallel_files(ranks, config),
        experiment.seed if experiment.is_stochastic else None, config["precision"],
        cuda_graph if config["device"] == "cuda" else None,
    )  # fmt: skip


def _parallel_files(ranks: int, config: Mapping[str, Any]) -> int:
    """Return how many files to compute at a time: by this process's share of the cores."""
    if config["device"] == "cuda":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = min(ranks, int(os.environ.get("LOCAL_WORLD_SIZE", ranks)))
    threads: int = config["threads"]
    return max(1, (cores or 1) // ranks // threads)
