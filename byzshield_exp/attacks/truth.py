"""What an attacker reads of the true gradients."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Truth(Protocol):
    """What an attacker reads of the true gradients.

    Attributes:
        sizes: entries of each parameter tensor, in ``parameters()`` order; their sum is d.
        num_classes: C.
    """

    sizes: list[int]
    num_classes: int

    def rows(self, files: Iterable[int] | None = None) -> Float[Tensor, "m d"]:
        """The rows of some files, None: of all; not to be written to."""
        ...

    def blank_row(self) -> Float[Tensor, " d"]:
        """A new vector of a row's size, type and device; its entries are not set."""
        ...

    def poisoned_rows(
        self, files: Iterable[int], poison: Callable[[Tensor, int], Tensor]
    ) -> Float[Tensor, "m d"]:
        """The rows of files whose labels are ``poison(labels [b], file)``; a new tensor."""
        ...

    def rows_at(
        self, step: int, params: Float[Tensor, " d"], files: Iterable[int]
    ) -> Float[Tensor, "m d"]:
        """The true rows of another step's files at other parameters; a new tensor."""
        ...
