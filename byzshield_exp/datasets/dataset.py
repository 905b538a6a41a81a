"""A data set in memory."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures, standardised with the training set's statistics, and their classes.

    Attributes:
        train_images: ``[n, c, h, w]``.
        train_labels: ``[n]``, in ``0..num_classes-1``.
        test_images: ``[m, c, h, w]``.
        test_labels: ``[m]``.
        num_classes: C.
    """

    train_images: Float[Tensor, "n c h w"]
    train_labels: Int[Tensor, " n"]
    test_images: Float[Tensor, "m c h w"]
    test_labels: Int[Tensor, " m"]
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def num_train(self) -> int:
        """Training pictures, n."""
        return len(self.train_labels)
