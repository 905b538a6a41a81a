"""The memory that a network takes to compute a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_WORKED_ON = 2  # tensors that an operation needs beside those that are saved


@dataclass
class Activations:
    """What a forward pass of a few samples keeps for its backward pass, parameters left out.

    Attributes:
        samples: that were tried, at least 1.
        saved: bytes.
        largest: bytes of the largest tensor among them.
    """

    samples: int
    saved: int = 0
    largest: int = 0

    def of_file(self, samples: int) -> int:
        """Estimate from above the bytes that the gradient of ``samples`` takes, beside gradients.

        Saved are inputs of operations; their outputs, and gradients with respect to activations,
        are as large as the largest of them at most.
        """
        return (self.saved + _WORKED_ON * self.largest) * samples // self.samples

    def of_evaluation(self, samples: int) -> int:
        """Estimate the bytes that the scores of ``samples`` take, where nothing is kept."""
        return (1 + _WORKED_ON) * self.largest * samples // self.samples


@contextmanager
def counted(parameters: Tensor, samples: int) -> Iterator[Activations]:
    """Count what a forward pass in the block saves.

    Args:
        parameters: the memory of all parameters, which is not counted.
        samples: of the pass.
    """
    found, seen = Activations(samples), {parameters.untyped_storage().data_ptr()}

    def pack(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in seen:
            seen.add(memory.data_ptr())
            found.saved += memory.nbytes()
            found.largest = max(found.largest, memory.nbytes())
        return tensor.detach()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found
