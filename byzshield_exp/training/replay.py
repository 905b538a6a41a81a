"""A file's gradient, recorded once and replayed for every other file of the same shape.

A GPU is done with the kernels of a small file before Python has asked for the next ones. A CUDA
graph asks for all of them at once. It holds what the loop would ask for: the same kernels, with the
same arguments and the same memory for parameters and statistics, in the same order on one stream.
So its bits are those of the loop.

Files are replayed one after the other. Two at a time on two streams would take a second graph, with
activations and gradients of its own, and is not done.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch
from torch import Tensor

from byzshield_exp.errors import first_line
from byzshield_exp.notices import warn


class Computed(NamedTuple):
    """What is computed of a file; after a replay it is valid until the next one.

    Attributes:
        loss: mean loss, a scalar in nats.
        entries: for each parameter tensor the entries of its gradient, as
            :func:`byzshield_exp.networks.entries_of` orders them.
    """

    loss: Tensor
    entries: list[Tensor]


# ``record(work)`` records the operations of ``work``. It returns its result, which holds nothing
# yet, and a function that does them again: they read and write where they did. It raises
# RuntimeError if they cannot be recorded.
Record = Callable[[Callable[[], Computed]], tuple[Computed, Callable[[], None]]]


class _Recording(NamedTuple):
    images: Tensor
    labels: Tensor
    result: Computed
    replay: Callable[[], None]


class Replay:
    """``replay(images, labels)`` computes what ``work(images, labels)`` does, with the same bits.

    Args of the constructor:
        work: does the same operations for all arguments of one form (shape, strides, type), on
            memory that stays where it is, and waits for none of them.
        record: records them; None: ``work`` is called each time. So it is also, after a warning,
            when they cannot be recorded, unless for want of memory.
    """

    def __init__(self, work: Callable[[Tensor, Tensor], Computed], record: Record | None) -> None:
        self._work, self._record = work, record
        self._recordings: dict[object, _Recording] = {}

    def __call__(self, images: Tensor, labels: Tensor) -> Computed:
        """Compute the loss and the gradient of one file."""
        recording = self._recording(images, labels) if self._record else None
        if recording is None:
            return self._work(images, labels)
        recording.images.copy_(images)
        recording.labels.copy_(labels)
        recording.replay()
        return Computed(recording.result.loss.clone(), recording.result.entries)

    def _recording(self, images: Tensor, labels: Tensor) -> _Recording | None:
        key = tuple((part.shape, part.stride(), part.dtype) for part in (images, labels))
        if key not in self._recordings and self._record:
            pictures, classes = images.clone(), labels.clone()
            try:
                recorded = self._record(lambda: self._work(pictures, classes))
            except torch.OutOfMemoryError:  # the loop has no more of it
                raise
            except RuntimeError as error:
                self._record = None
                warn(
                    "the network's operations cannot be recorded as a CUDA graph "
                    f"({first_line(error)}): they are started one by one, with the same bits"
                )
                return None
            self._recordings[key] = _Recording(pictures, classes, *recorded)
        return self._recordings[key]


def cuda_graph(work: Callable[[], Computed]) -> tuple[Computed, Callable[[], None]]:
    """Record operations as a CUDA graph; see :data:`Record`.

    They are done twice before, on the stream that will be captured. The first time, libraries
    prepare themselves and autograd meets the stream. The second time, an operation that waits for
    the GPU raises an error, as a capture that fails is harder to clean up.
    """
    graph = torch.cuda.CUDAGraph()
    here, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(here)
    try:
        with torch.cuda.stream(side):  # a capture that fails does not leave its stream itself
            work()
            with _no_waiting():
                work()
            result = _capture(graph, side, work)
    finally:
        here.wait_stream(side)  # also what failed has written statistics
    return result, graph.replay


def _capture(
    graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, work: Callable[[], Computed]
) -> Computed:
    pool = torch.cuda.graph_pool_handle()
    try:
        # NCCL's watchdog and others may use CUDA meanwhile: their calls are not captured.
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            return work()
    except BaseException:
        graph.reset()
        _end_capture(stream.device_index, pool)
        raise


def _end_capture(device: int, pool: tuple[int, int]) -> None:
    """End what torch takes to go on after a capture that failed."""
    with suppress(RuntimeError):  # the allocator
        for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
            if hasattr(torch._C, name):  # it has the second name before torch 2.8
                getattr(torch._C, name)(device, pool)
                break
        torch._C._cuda_releasePool(device, pool)
    # The generator's state: a copy of it has the same numbers and is not captured.
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(generator.clone_state())


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise a RuntimeError where an operation waits for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not notice all: it is a prototype, torch warns
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
