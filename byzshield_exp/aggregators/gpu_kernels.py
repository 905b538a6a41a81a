"""The coordinate-wise rules' kernel for a GPU: the network of kernels.py, in Triton.

A thread has the ``n`` entries of one coordinate in its registers, and the network's steps are
written out, each as two instructions of the GPU: nothing goes through shared memory or between
threads, and the rows are read once. Triton has no arrays of registers, so that the source is made
here for each ``n``. ``tl.sort`` would sort all of a power of two of rows, and leave the layout to
Triton. ``torch.sort`` copies the rows, and sorts 8-byte indices with them: 40 bytes an entry.

Compiling takes seconds, with 128 rows ten, and a minute where the nearest entries are kept; Triton
keeps the result on disk.
"""

import linecache
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.sorting import sorting_network

MOST_ROWS = 128  # 200 of a thread's 255 registers; float64 takes twice as many and spills
_BLOCK, _WARPS = 128, 4  # one coordinate per thread


def mean_of_ordered(
    rows: Float[Tensor, "n d"], low: int, high: int, keep: int, out: Float[Tensor, " d"]
) -> bool:
    """Fill ``out [d]`` and return whether all entries are finite; waits for the GPU once.

    As ``columns.mean_of_ordered``, with the same bits: sums are in float64, in ascending order.
    """
    is_half = rows.dtype.itemsize < 4
    kernel = _kernel(len(rows), low, high, keep, is_half)
    unclean = torch.zeros(1, dtype=torch.int32, device=rows.device)
    mean = torch.empty_like(out, dtype=torch.float32) if is_half else out
    width = rows.shape[1]
    with torch.cuda.device_of(rows):
        kernel[(triton.cdiv(width, _BLOCK),)](
            rows, *rows.stride(), width, mean, unclean, BLOCK=_BLOCK, num_warps=_WARPS
        )
    if is_half:
        out.copy_(mean)  # rounded by torch, as on a CPU
    return not unclean.item()


@lru_cache(maxsize=64)
def _kernel(num_rows: int, low: int, high: int, keep: int, is_half: bool) -> Any:
    network = sorting_network(num_rows, *((0, num_rows) if keep else (low, high))).tolist()
    lines = [
        "def mean_of_ordered(rows, row_stride, stride, width, out, unclean, BLOCK: tl.constexpr):",
        "at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
        "inside = at < width",
        "start = rows + at * stride",
        *_load(num_rows),
        *([f"x{i} = x{i}.to(tl.float32)" for i in range(num_rows)] if is_half else []),
        "clean = tl.abs(x0) < float('inf')",  # false for a NaN too
        *(f"clean &= tl.abs(x{i}) < float('inf')" for i in range(1, num_rows)),
        *(f"x{i}, x{j} = tl.minimum(x{i}, x{j}), tl.maximum(x{i}, x{j})" for i, j in network),
        *_mean((f"x{i}" for i in range(low, high)), high - low),
        *(_nearest(num_rows, keep) if keep else []),
        "tl.store(out + at, mean.to(out.dtype.element_ty), mask=inside)",
        "tl.store(unclean + at * 0, 1, mask=clean == 0)",
    ]
    return _compiled("\n    ".join(lines) + "\n", "mean_of_ordered")


def _load(num_rows: int) -> Iterator[str]:
    """Load rows by powers of two, and take the tiles apart, which moves no register.

    One load a row would be as fast, but Triton 3.8 looks at all later lines for each load: 20 s
    for 81 rows. The order of the rows within a tile does not matter, they are sorted.
    """
    first = 0
    while first < num_rows:
        count = 1 << (num_rows - first).bit_length() - 1
        place = f"(tl.arange(0, {count}) + {first}).to(tl.int64)"  # a row may be 2**31 entries away
        yield f"places = start[:, None] + {place} * row_stride"
        yield f"tile_{count}_0 = tl.load(places, mask=inside[:, None], other=0.0)"
        size = count
        while size > 1:
            size //= 2
            for at in range(count // size // 2):
                whole = f"tl.reshape(tile_{2 * size}_{at}, BLOCK, {size}, 2)"
                yield f"tile_{size}_{2 * at}, tile_{size}_{2 * at + 1} = {whole}.split()"
        yield from (f"x{first + at} = tl.reshape(tile_1_{at}, BLOCK)" for at in range(count))
        first += count


def _mean(entries: Iterable[str], count: int) -> Iterator[str]:
    """Add up in float64 from 0.0, so that no sum is -0.0."""
    yield "mean = tl.zeros([BLOCK], tl.float64)"
    yield from (f"mean += {entry}" for entry in entries)
    if count > 1:
        yield f"mean /= {count}"


def _nearest(num_rows: int, keep: int) -> Iterator[str]:
    """Nearest entries lie side by side: the best window is that whose far end is nearest."""
    yield "nearest = tl.full([BLOCK], float('inf'), tl.float64)"
    yield "first = tl.zeros([BLOCK], tl.int32)"
    for start in range(num_rows - keep + 1):
        yield f"reach = tl.maximum(mean - x{start}, x{start + keep - 1} - mean)"
        yield f"first = tl.where(reach < nearest, {start}, first)"
        yield "nearest = tl.minimum(reach, nearest)"
    inside = "tl.where((first <= {i}) & ({i} < first + {keep}), x{i}, 0.0)"
    yield from _mean((inside.format(i=i, keep=keep) for i in range(num_rows)), keep)


def _compiled(source: str, name: str) -> Any:
    """Make a kernel of source text; Triton reads it again where Python keeps sources."""
    file = f"<{name} {hash(source):x}>"
    linecache.cache[file] = len(source), None, source.splitlines(True), file
    space: dict[str, Any] = {"tl": tl, "__name__": __name__}
    exec(compile(source, file, "exec"), space)
    # Of rows with equal alignment Triton would give a thread four coordinates, and then exchange
    # them through shared memory to take tiles apart.
    return triton.jit(space[name], do_not_specialize=["row_stride"])
