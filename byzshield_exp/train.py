"""The one loop, on every rank of a run."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from byzshield_exp.clusters import Cluster, broadcast_text, join, leave
from byzshield_exp.distortion import WorstCase
from byzshield_exp.experiment import Experiment, build
from byzshield_exp.gradients import TrueGradients
from byzshield_exp.protocols import ParameterServer
from byzshield_exp.server import Server


def train(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, Any] | None:
    """Train on this rank; the server returns the summary that it wrote, other ranks None.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        folder: of the run; only the server writes to it.
        rank: 0 is the server.
        world_size: 1 is the simulation: this process plays everybody.

    Raises:
        RunError: if the run cannot go on.
    """
    torch.set_num_threads(config["threads"])
    if config["device"] == "cuda":
        _make_cuda_deterministic()
    assignment, params = experiment.assignment, experiment.params
    cluster = Cluster(
        assignment.num_workers, assignment.load, rank, world_size,
        config["cluster"]["worker_timeout"],
    )  # fmt: skip
    truth = TrueGradients(
        experiment.network, experiment.dataset, experiment.batches, assignment.num_files,
        _parallel_files(world_size, config["threads"]),
    )  # fmt: skip
    protocol = ParameterServer(experiment, cluster, truth)
    server = None
    try:
        server = Server(experiment, protocol, config, folder) if cluster.is_server else None
        protocol.check_replicas()
        while (
            step := cluster.begin_step(params, server.next_step if server else None)
        ) is not None:
            update, report = protocol.step(step)
            if server and update is not None and report is not None:
                server.finish_step(update, report)
        return server.finish() if server else None
    except Exception:
        cluster.end(params)
        raise
    finally:
        if server:
            server.close()


def describe_job(config: Mapping[str, Any], folder: Path, worst: WorstCase) -> str:
    """A run as a text that every rank understands.

    The worst case is part of it: a search that was ended would end elsewhere on another rank.
    """
    return json.dumps({"config": config, "folder": str(folder.absolute()), "worst": asdict(worst)})


def run_rank(rendezvous: tuple[str, int, int] | None, job: str) -> str | None:
    """Play one rank of a job.

    Args:
        rendezvous: file, rank and world size of a group to join; None: it is joined already.
        job: :func:`describe_job`'s text.

    Returns:
        On rank 0 the summary as JSON.
    """
    work = json.loads(job)
    if rendezvous is not None:
        join(rendezvous)
    config = work["config"]
    rank, world_size = dist.get_rank(), dist.get_world_size()
    worst = WorstCase(**{**work["worst"], "workers": tuple(work["worst"]["workers"])})
    experiment = build(config, worst)
    summary = train(experiment, config, Path(work["folder"]), rank, world_size)
    if rendezvous is not None:
        leave()
    return None if summary is None else json.dumps(summary)


def follow_torchrun() -> None:
    """A rank above 0 under torchrun: play the jobs that rank 0 sends, until it sends none."""
    join()
    while job := broadcast_text(None):
        run_rank(None, job)
    leave()


def _make_cuda_deterministic() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def _parallel_files(world_size: int, threads: int) -> int:
    """How many files this process computes at a time: its share of the machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return max(1, (cores or 1) // max(1, ranks - 1) // threads)
