"""The gradients that a process computes, with its share of the machine."""

import os
from collections.abc import Mapping
from typing import Any

from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.replay import cuda_graph


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
