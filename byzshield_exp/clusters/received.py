"""What rank 0 of a process group receives in a step: rows, and a report of each rank."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.clusters.inbox import STATEMENT_BYTES
from byzshield_exp.rows.digests import DIGEST_BYTES, same_bytes
from byzshield_exp.rows.parallel import new_rows

_REPLICA = np.dtype([("loss", "<f4"), ("finite", "u1"), ("digest", "u1", (DIGEST_BYTES,))])


class RankReport:
    """What a rank says at the end of its step, in one message of known size.

    Args of the constructor:
        count: replicas that it sent.

    Attributes:
        content: the message.
        statement: its packed statement, in the message.
        replicas: loss, digest and finiteness of each replica, in the message.
    """

    def __init__(self, count: int) -> None:
        self.content = as_tensor(b"", STATEMENT_BYTES + count * _REPLICA.itemsize)
        self.statement = self.content.numpy()[:STATEMENT_BYTES]
        self.replicas = self.content.numpy()[STATEMENT_BYTES:].view(_REPLICA)


class Received:
    """Rows that came: those of a file that are equal are stored once.

    Two slots for each rank take what comes: one is compared while the other is filled. They exist
    only while rows come, as a rule needs memory of its own afterwards.

    Args of the constructor:
        rows: ``[f, d + s]``, takes the first row of each file.
        ranks: that send rows.
    """

    def __init__(self, rows: Tensor, ranks: Collection[int]) -> None:
        self._rows, self._ranks = rows, ranks
        self._slots: dict[int, Tensor] = {}
        self._of_file: list[list[Tensor]] = [[] for _ in rows]
        self._others: list[Tensor] = []  # where replicas of a file differ
        self._used = 0

    def open(self) -> None:
        """Make the slots."""
        self._slots = {rank: new_rows(2, self._rows) for rank in self._ranks}

    def close(self) -> None:
        """Drop the slots."""
        self._slots.clear()

    def clear(self) -> None:
        """Forget all rows; their memory is used again."""
        self._used = 0
        for stored in self._of_file:
            stored.clear()

    def slot(self, rank: int, turn: int) -> Tensor:
        """Return where the row of a rank's turn is received."""
        return self._slots[rank][turn % 2]

    def keep(self, file: int, row: Tensor, is_reused: bool = True) -> Tensor:
        """Return the stored row that equals this one; store it if there is none.

        Args:
            file: whose row it is.
            row: ``[d + s]``.
            is_reused: whether its memory takes another row in this step, so that it is copied.
        """
        stored = self._of_file[file]
        for other in stored:
            if other.data_ptr() == row.data_ptr() or same_bytes(other, row):
                return other
        if is_reused:
            row = (self._other() if stored else self._rows[file]).copy_(row)
        stored.append(row)
        return row

    def _other(self) -> Tensor:
        if self._used == len(self._others):
            self._others.append(new_rows(1, self._rows)[0])
        self._used += 1
        return self._others[self._used - 1]


def as_tensor(content: bytes, size: int) -> Tensor:
    """Return bytes as a tensor of ``size`` bytes, with zeros behind them."""
    return torch.frombuffer(bytearray(content.ljust(size, b"\0")), dtype=torch.uint8)
