"""Work on chunks of coordinates, on as many threads as torch is given, with the same bits."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

T = TypeVar("T")


def each(work: Callable[[int], T], items: Iterable[int], device: torch.device) -> list[T]:
    """Call ``work(item)`` for each item; results in their order.

    On a CPU each thread does whole items and torch's own threads are off. Threads that wait for
    each other in every small operation take ten times as long once another program uses a core,
    and the bits of a chunk would depend on their number.
    """
    todo = list(items)
    if device.type != "cpu":
        return [work(item) for item in todo]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread
    try:
        if threads == 1 or len(todo) == 1:
            return [work(item) for item in todo]
        with ThreadPoolExecutor(threads, initializer=_alone) as pool:
            return list(pool.map(work, todo))
    finally:
        torch.set_num_threads(threads)


def chunk_for(device: torch.device, on_cpu: int) -> int:
    """Coordinates to work on at a time: on a CPU what stays in its cache, on a GPU many.

    25 float32 rows of a GPU's chunk are 100 MB, which an H100 reads in 30 us or more: longer than a
    launch takes. A temporary of a chunk is a tenth of the rows of ResNet-18.
    """
    return on_cpu if device.type == "cpu" else 1 << 20


def sent(numbers: Shaped[Tensor, "..."], device: torch.device) -> Shaped[Tensor, "..."]:
    """Copy a tensor from the CPU to a device; the CPU does not wait for a GPU."""
    if device.type == "cpu":
        return numbers
    return numbers.pin_memory().to(device, non_blocking=True)


class Scratch(threading.local):
    """Memory that a thread reuses for its next chunk: new pages cost more than the sums."""

    def __init__(self) -> None:
        self._held = torch.empty(0, dtype=torch.float64)

    def rows(self, count: int, width: int, device: torch.device) -> Tensor:
        """An uninitialised ``[count, width]`` in float64."""
        if self._held.numel() < count * width or self._held.device != device:
            self._held = torch.empty(count * width, dtype=torch.float64, device=device)
        return self._held[: count * width].view(count, width)


def new_rows(count: int, like: Tensor) -> Tensor:
    """An uninitialised ``[count, d]`` like rows ``[n, d]``; on a CPU in numpy's large pages."""
    shape = count, like.shape[1]
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, np.float32 if like.dtype == torch.float32 else float))


def _alone() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)  # also of each thread
