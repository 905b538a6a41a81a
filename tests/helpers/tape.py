"""Operations that are recorded and done again on a CPU, as a CUDA graph does on a GPU."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

EMPTY = torch.ops.aten.empty.memory_format
WAITING = torch.ops.aten._local_scalar_dense.default


class Tape(TorchDispatchMode):
    """Records operations, never the Python that calls them.

    Done again, each writes where it wrote before. What it read then it reads again, so a tensor
    that was not in the same place is not noticed, and its old values go into the result.
    """

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is WAITING:
            raise RuntimeError("operation not permitted when stream is capturing")
        made = func(*args, **(kwargs or {}))
        if func is not EMPTY:  # holds nothing yet
            self.done.append((torch.is_grad_enabled(), func, args, kwargs or {}, made))
        return made

    def play(self):
        for grad_mode, func, args, kwargs, before in self.done:
            with torch.set_grad_enabled(grad_mode), torch._C._AutoDispatchBelowAutograd():
                now = func(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(now), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)


class Recorder:
    """Records on a tape; spoils all that a caller must not rely on between replays.

    Attributes:
        recorded: how many tapes there are.
        replayed: how many times one was played.
    """

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, work):
        tape = Tape()
        with tape:
            result = work()
        self.recorded += 1
        inputs = _cells_of(work)
        statics = [result.loss, *result.entries]

        def spoil(tensors):
            for tensor in tensors:
                tensor.fill_(-1)  # no class; as a result a number that no gradient is

        def replay():
            self.replayed += 1
            spoil(statics)  # what the caller has kept of the file before
            tape.play()
            spoil(inputs)  # who does not set them for the next file

        spoil(statics)  # nothing was computed yet
        return result, replay


def _cells_of(work):
    """The tensors that the recorded function holds: its inputs."""
    held = [cell.cell_contents for cell in work.__closure__]
    return [value for value in held if isinstance(value, Tensor)]
