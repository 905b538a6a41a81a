"""What a run needs of a GPU's memory, known before its first step."""

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from byzshield_exp.attacks import shares
from byzshield_exp.clusters import Seats
from byzshield_exp.datasets.dataset import EVALUATED_AT_ONCE
from byzshield_exp.errors import ConfigError, RunError, first_line
from byzshield_exp.optimizers import without_compiler
from byzshield_exp.rows.parallel import chunk_for
from byzshield_exp.training.experiment import Experiment

_SORTED_BYTES = 24  # of an entry that is sorted: a copy, its place (int64), and both once more
_LIBRARIES = 1 << 28  # work space of cuBLAS and cuDNN, estimated
_CONTEXT = 1 << 29  # CUDA's own, of each process, estimated
_GIB = 2**30


@dataclass(frozen=True)
class GpuMemory:
    """Bytes on a GPU.

    Attributes:
        free: that this process can still take.
        total: of the GPU.
    """

    free: int
    total: int

    @classmethod
    def here(cls) -> "GpuMemory":
        """Ask the GPU of this process; what torch holds and does not use is free."""
        gc.collect()  # a run before this one
        free, total = torch.cuda.mem_get_info()
        return cls(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated(), total)


@dataclass(frozen=True)
class GpuNeed:
    """What one process of a run needs, in bytes.

    Attributes:
        table: one row for each of f files.
        tables: how many such tables there are, also parts of them.
        network: parameters, optimizer, gradients and activations.
        data: pictures and labels.
        there: how much of it is on the GPU already.
    """

    table: int
    tables: float
    network: int
    data: int
    there: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return int(self.tables * self.table) + self.network + self.data

    def line(self, memory: GpuMemory | None = None) -> str:
        """Say what is needed, of how much where that is known."""
        of = f" of {memory.total / _GIB:.2f}" if memory else ""
        return (
            f"needs {self.total / _GIB:.2f}{of} GiB of GPU memory: rows {self.tables:.3g} x "
            f"{self.table / _GIB:.2f}, network and activations {self.network / _GIB:.2f}, data "
            f"{self.data / _GIB:.2f}"
        )

    def check(self, memory: GpuMemory, sharers: int = 1) -> None:
        """Refuse a run that cannot fit.

        Args:
            memory: of this process's GPU.
            sharers: processes on that GPU; each may take its share, without CUDA's context.

        Raises:
            ConfigError: with both numbers.
        """
        share = memory.total // sharers - (_CONTEXT if sharers > 1 else 0)
        if self.total <= share and self.total - self.there <= memory.free:
            return
        missing = (
            f"{sharers} processes share it, each with {_CONTEXT / _GIB:.2f} for CUDA's context"
            if self.total > share and sharers > 1
            else f"{memory.free / _GIB:.2f} GiB more are free"
        )
        raise ConfigError(f"device=cuda: {self.line(memory)}; {missing}")


def gpu_need(
    experiment: Experiment, config: Mapping[str, Any], seats: Seats, rank: int, backend: str
) -> GpuNeed:
    """Estimate what a rank needs; the server most.

    Where an attack makes a row for each file and the network has running statistics, its rows are
    there twice for a moment, which is not counted.

    Args:
        experiment: the parts.
        config: plain and resolved.
        seats: who plays whom.
        rank: of the process.
        backend: what carries the rows.
    """
    flat, num_files = experiment.flat, experiment.assignment.num_files
    size = len(flat.params)
    rows = _count_made(experiment, seats, rank)
    if rank == 0:
        rows += num_files  # winners
        rows += 2 * (seats.world_size - 1) if backend == "nccl" else 0  # while they are received
        rows += num_files * (experiment.defence.copies + (experiment.worker_momentum > 0))
    data = sum(_bytes(part) for part in vars(experiment.dataset).values())
    vectors = 1 + 2  # parameters; gradients as autograd makes them and as entries of a row
    if rank == 0:
        vectors += 2 + _optimizer_vectors(experiment) + experiment.defence.is_previous_read
    channels, height, width = experiment.dataset.shape
    pictures = 4 * experiment.batches.batch_size * channels * height * width
    file = experiment.activations.of_file(experiment.batches.file_size)
    others = max(
        experiment.activations.of_evaluation(EVALUATED_AT_ONCE),
        _SORTED_BYTES * num_files * min(size, chunk_for(torch.device("cuda"), 0)),
    )
    # A recorded file keeps its memory for the whole run; else each takes what the one before left.
    work = max(file, others) if experiment.is_stochastic else file + others
    there = _bytes(flat.state) + data if flat.state.device.type == "cuda" else 0
    return GpuNeed(
        table=num_files * _bytes(flat.state),
        tables=rows / num_files,
        network=vectors * 4 * size + pictures + work + _LIBRARIES,
        data=data,
        there=there,
    )


def count_sharers(ranks: int, runs: int, gpus: int) -> int:
    """Count the processes that share a GPU of this machine, at most.

    Args:
        ranks: of a run on this machine.
        runs: side by side.
        gpus: of this machine.
    """
    return math.ceil(ranks * runs / max(1, gpus))


@contextmanager
def full_memory_named() -> Iterator[None]:
    """Say in one line that a GPU's memory is full.

    Raises:
        RunError: instead of torch's errors.
    """
    try:
        yield
    except RuntimeError as error:
        of_cuda = str(error).startswith("CUDA error: out of memory")  # none is left for its context
        if not (of_cuda or isinstance(error, torch.OutOfMemoryError)):
            raise
        said = ". ".join(first_line(error).split(". ")[:2])  # what follows is about the allocator
        raise RunError(f"device=cuda: {said}: try a smaller batch_size or network") from error


def _count_made(experiment: Experiment, seats: Seats, rank: int) -> int:
    """Count the rows that a rank computes, for an attack those of all files, and those it forges.

    Alone it computes them among the winners.
    """
    workers = seats.workers_of(rank)
    (liars,) = experiment.choose.first_sets(1) if experiment.forge is not None else [()]
    made = shares(experiment.forge, liars).values() if experiment.forge and liars else ()
    mine = [[worker for worker in workers if worker in its] for _, its in made]
    forged = sum(len(seats.holders(some)) for some in mine)
    if seats.world_size == 1:
        return forged
    num_files = experiment.assignment.num_files
    return forged + num_files if forged else len(seats.holders(workers))


def _optimizer_vectors(experiment: Experiment) -> int:
    """Count the vectors [d] that the optimizer keeps, tried on two parameters; one is scratch."""
    params = torch.zeros(2)
    optimizer, _ = experiment.make_optimizer(params)
    params.grad = torch.zeros(2)
    with without_compiler():
        optimizer.step()
    kept = (value for state in optimizer.state.values() for value in state.values())
    return 1 + sum(isinstance(value, Tensor) and value.shape == params.shape for value in kept)


def _bytes(value: object) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
