"""What carries the rows of a run, and whether rank 0 plays workers."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed import is_nccl_available

from byzshield_exp.clusters.meeting import torchrun_size
from byzshield_exp.errors import ConfigError


def chosen_backend(config: Mapping[str, Any]) -> str:
    """Return ``alone``, ``sockets``, ``gloo`` or ``nccl``; what ``auto`` is depends on the machine.

    Under torchrun it is NCCL where every rank of this machine has a GPU of its own, else gloo.
    Elsewhere it is sockets, which outlive lost processes, unless rank 0 is to play workers; and so
    it is for ``cluster.majority_of=present``, which is about lost processes.

    Args:
        config: plain and resolved.
    """
    if config["choices"]["cluster"] == "local":
        return "alone"
    cluster = config["cluster"]
    asked, plays = str(cluster.get("backend", "auto")), cluster.get("server_plays") is True
    if asked == "auto" and cluster["majority_of"] == "present":
        return "sockets"
    if asked == "auto" and torchrun_size() is None and not plays:
        return "sockets"
    if asked != "auto":
        return asked
    return "gloo" if _nccl_problem(config) else "nccl"


def _nccl_problem(config: Mapping[str, Any]) -> str:
    if config["device"] != "cuda":
        return "needs device=cuda"
    count = config["cluster"]["num_processes"]
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    gpus = torch.cuda.device_count()
    if ranks > gpus:
        return f"needs a GPU for each of the {ranks} processes on this machine, there are {gpus}"
    return "" if is_nccl_available() else "is not part of this torch"


def server_plays(config: Mapping[str, Any], backend: str) -> bool:
    """Whether rank 0 plays workers beside other ranks; ``auto``: where each rank is a GPU."""
    asked, count = config["cluster"].get("server_plays", "auto"), config["cluster"]["num_processes"]
    if asked == "auto":
        return backend == "nccl" and count <= config["K"]
    return bool(asked)


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with ``cluster.backend`` and ``cluster.server_plays`` chosen.

    Raises:
        ConfigError: if NCCL is asked for where it cannot be had.
    """
    backend = chosen_backend(config)
    if backend == "nccl" and (problem := _nccl_problem(config)):
        raise ConfigError(f"cluster.backend=nccl {problem}")
    chosen: dict[str, Any] = {"backend": "auto", "server_plays": "auto"}
    if backend != "alone":
        chosen = {"backend": backend, "server_plays": server_plays(config, backend)}
    return {**config, "cluster": {**config["cluster"], **chosen}}
