"""What travels of a replica: a gradient row, the running statistics behind it, and a loss."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Message:
    """One replica, from the table of a worker to the vote.

    Attributes:
        joined: ``[d + s]``, the row and the statistics side by side, as they travel and are voted.
        size: d.
        loss: mean loss of the file, in nats; NaN where it was not computed.
    """

    joined: Float[Tensor, " d_plus_s"]
    size: int
    loss: float

    @property
    def row(self) -> Float[Tensor, " d"]:
        """The gradient."""
        return self.joined[: self.size]

    @property
    def statistics(self) -> Float[Tensor, " s"]:
        """The running statistics after the file."""
        return self.joined[self.size :]


def join(rows: Float[Tensor, "m d"], statistics: Float[Tensor, "m s"]) -> Float[Tensor, "m d_s"]:
    """Put statistics behind rows."""
    return torch.cat([rows, statistics], dim=1)


def split(
    joined: Float[Tensor, "n d_s"], size: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n s"]]:
    """Rows of ``size`` entries, and the statistics behind them; views of ``joined``."""
    if joined.shape[1] == size:
        return joined, joined[:, size:]  # rows that lie side by side
    return joined[:, :size], joined[:, size:]
