"""Means of the middle of sorted columns: all the coordinate-wise rules are such means.

Three paths give the same bits. Two are compiled sorting networks: on a CPU numba compiles
kernels.py in a thread of its own, on a GPU Triton compiles gpu_kernels.py; both keep the result on
disk. The third is numpy's or torch's sort: for few entries, for other types on a CPU and too many
rows on a GPU, and until the first path is compiled.
"""

import math
from collections.abc import Callable
from threading import Thread

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.policy import Unclean
from byzshield_exp.aggregators.sorting import sorting_network
from byzshield_exp.rows.gpu import has_kernels
from byzshield_exp.rows.parallel import chunk_for, each, new_rows

_SORTED, _COMPILED = 1 << 16, 1 << 18  # coordinates per task, by path
_WORTH = 1 << 20  # entries; below it, sorting costs less than asking for the kernel
_HUGE, _SMALLER = 1e290, 2.0**-100
_compiled: dict[torch.dtype, Callable[..., bool]] = {}
_compilers: dict[torch.dtype, Thread] = {}


def mean_of_ordered(
    rows: Float[Tensor, "n d"], low: int, high: int, keep: int = 0
) -> Float[Tensor, " d"]:
    """Per column the mean of the sorted entries ``low`` to ``high - 1``, summed in float64.

    Args:
        rows: one gradient per row.
        low: first entry in ascending order, ``0 <= low < high``.
        high: after the last, ``high <= n``.
        keep: if positive, the mean of the ``keep`` entries nearest to the above instead; of
            equally near ones the smaller.

    Raises:
        Unclean: if an entry is not finite.
    """
    if _sums_overflow(rows):
        return mean_of_ordered(rows * _SMALLER, low, high, keep) / _SMALLER
    out = new_rows(1, rows)[0]
    if rows.numel() >= _WORTH and has_kernels(rows.device):
        from byzshield_exp.aggregators import gpu_kernels  # there is no Triton without a GPU

        if len(rows) <= gpu_kernels.MOST_ROWS:
            if not gpu_kernels.mean_of_ordered(rows, low, high, keep, out):
                raise Unclean
            return out
    kernel = _kernel(rows) if rows.numel() >= _WORTH else None
    chunk = chunk_for(rows.device, _SORTED if kernel is None else _COMPILED)

    def work(start: int) -> bool:
        stop = min(start + chunk, rows.shape[1])
        if kernel is not None:
            return _by_network(kernel, rows, start, stop, (low, high, keep), out)
        return _by_sort(rows[:, start:stop], low, high, keep, out[start:stop])

    if not all(each(work, range(0, rows.shape[1], chunk), rows.device)):
        raise Unclean
    return out


def _sums_overflow(rows: Tensor) -> bool:
    if rows.dtype != torch.float64:
        return False  # half types are added up in float64, which holds their sums
    low, high = rows.aminmax()
    return _HUGE < float(torch.maximum(-low, high)) < math.inf


def compile_now(dtype: torch.dtype = torch.float32) -> None:
    """Wait until the compiled path is ready: for benchmarks and tests."""
    _kernel(torch.empty(1, 1, dtype=dtype))
    _compilers[dtype].join()


def _kernel(rows: Tensor) -> Callable[..., bool] | None:
    """The compiled function for rows of this type; None while there is none."""
    dtype = rows.dtype
    if rows.device.type != "cpu" or dtype not in (torch.float32, torch.float64):
        return None
    if dtype not in _compilers:
        _compilers[dtype] = Thread(target=_compile, args=[dtype], name="byzshield-compile")
        _compilers[dtype].start()
    return _compiled.get(dtype)


def _compile(dtype: torch.dtype) -> None:
    from byzshield_exp.aggregators import kernels  # numba takes a second to import

    sample = torch.zeros(1, 1, dtype=dtype).numpy()
    kernels.mean_of_ordered(sample, 0, 1, sorting_network(1, 0, 1), 0, 1, 0, sample[0].copy())
    _compiled[dtype] = kernels.mean_of_ordered


def _by_network(
    kernel: Callable[..., bool],
    rows: Tensor,
    start: int,
    stop: int,
    which: tuple[int, int, int],
    out: Tensor,
) -> bool:
    low, high, keep = which
    wanted = (low, high) if keep == 0 else (0, len(rows))
    network = sorting_network(len(rows), *wanted)
    if rows.is_contiguous():
        return kernel(rows.detach().numpy(), start, stop, network, *which, out.numpy())
    part = rows[:, start:stop].contiguous().numpy()
    return kernel(part, 0, stop - start, network, *which, out[start:stop].numpy())


def _by_sort(
    part: Float[Tensor, "n c"], low: int, high: int, keep: int, out: Float[Tensor, " c"]
) -> bool:
    wide = part if part.dtype == torch.float64 else part.float()
    ordered = _sorted(wide)
    if not bool(ordered[0].isfinite().all() & ordered[-1].isfinite().all()):
        return False
    result = _mean(ordered[low:high])
    if keep > 0:
        result = _mean_of_nearest(ordered, result, keep)
    out.copy_(result)
    return True


def _sorted(rows: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Ascending columns; numpy's sort is ten times torch's on a CPU."""
    if rows.device.type == "cpu":
        return torch.from_numpy(np.sort(rows.detach().numpy(), axis=0))
    return rows.sort(dim=0).values


def _mean(ordered: Float[Tensor, "m c"]) -> Float[Tensor, " c"]:
    """Column means, added up in float64 and in order as the compiled path does."""
    total = ordered.new_zeros(ordered.shape[1], dtype=torch.float64)
    for row in ordered:
        total += row
    return total / len(ordered)


def _mean_of_nearest(
    ordered: Float[Tensor, "n c"], centre: Float[Tensor, " c"], keep: int
) -> Float[Tensor, " c"]:
    """Nearest entries lie side by side: the best window is that whose far end is nearest."""
    nearest = torch.full_like(centre, torch.inf)
    first = torch.zeros_like(centre, dtype=torch.int64)
    for start in range(len(ordered) - keep + 1):
        reach = torch.maximum(centre - ordered[start], ordered[start + keep - 1] - centre)
        better = reach < nearest
        nearest = torch.where(better, reach, nearest)
        first = torch.where(better, start, first)
    total = torch.zeros_like(centre)
    for place, row in enumerate(ordered):
        inside = (first <= place) & (place < first + keep)
        total += torch.where(inside, row.double(), 0.0)
    return total / keep
