"""The rows that the server receives: equal ones are stored once, whoever sends them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from byzshield_exp.rows.digests import bytes_of, equal_memory
from byzshield_exp.rows.parallel import new_rows


@dataclass(eq=False)
class Row:
    """A stored row.

    Attributes:
        tensor: ``[d]``.
        content: its bytes.
        filled: how many of them are known.
    """

    tensor: Tensor
    content: np.ndarray
    filled: int = 0

    @classmethod
    def of(cls, tensor: Tensor) -> "Row":
        """A row of which nothing is known yet, in the memory of ``tensor``."""
        return cls(tensor, bytes_of(tensor))


class Shelf:
    """One row per file in a matrix, and more rows where replicas of a file differ.

    Attributes:
        matrix: ``[f, d]``.
        times_cleared: a copy of before is not wanted any more.
    """

    def __init__(self, matrix: Tensor, bucket: int) -> None:
        """Take the memory of ``matrix``; ``bucket`` bytes are compared at a time."""
        self.matrix = matrix
        self.rows = [Row.of(tensor) for tensor in self.matrix]
        self.others: list[Row] = []
        self._spare: list[Row] = []
        self.times_cleared = 0
        self.scratch = np.empty(bucket, dtype=np.uint8)

    def clear(self) -> None:
        """Forget all rows; their memory is used again."""
        self.times_cleared += 1
        self._spare += self.others
        self.others = []
        for row in [*self.rows, *self._spare]:
            row.filled = 0

    def new_row(self) -> Row:
        """One more row."""
        row = self._spare.pop() if self._spare else Row.of(new_rows(1, self.matrix)[0])
        self.others.append(row)
        return row


class Copy:
    """A sink for one replica. While it equals a stored row, nothing new is stored.

    Replicas of a file may come at the same time: the one that is ahead writes, the others compare.
    """

    def __init__(self, shelf: Shelf, file: int, done: Callable[[Tensor], None]) -> None:
        self._shelf, self._file, self._done = shelf, file, done
        self._at = 0
        self._writes = False
        self._time = shelf.times_cleared
        self.row = shelf.rows[file]

    @property
    def _is_late(self) -> bool:
        return self._time != self._shelf.times_cleared

    def room(self, most: int) -> memoryview:
        """Behind the known bytes of the row, or where the next bytes are compared with them."""
        if self._is_late:
            return self._shelf.scratch[:most].data
        known = self.row.filled - self._at
        self._writes = known == 0
        if self._writes:
            return self.row.content[self._at : self._at + most].data
        return self._shelf.scratch[: min(most, known)].data

    def fill(self, count: int) -> None:
        """Compare, and go to another row where they differ."""
        if self._is_late:
            return
        if not self._writes and not _begins_with(self.row, self._at, self._shelf.scratch[:count]):
            self.row = self._other(count)
        self._at += count
        self.row.filled = max(self.row.filled, self._at)

    def close(self) -> None:
        """Hand out the stored row."""
        if not self._is_late:
            self._done(self.row.tensor)

    def _other(self, count: int) -> Row:
        """The row that equals the bytes so far and the new ones; a new one if there is none."""
        start, new = self._at, self._shelf.scratch[:count]
        before = self.row.content[:start]
        for row in (self._shelf.rows[self._file], *self._shelf.others):
            if row is not self.row and row.filled >= start and _begins_with(row, 0, before):
                known = min(count, row.filled - start)
                if known == 0 or _begins_with(row, start, new[:known]):
                    row.content[start + known : start + count] = new[known:]
                    return row
        row = self._shelf.new_row()
        row.content[:start] = before
        row.content[start : start + count] = new
        return row


def _begins_with(row: Row, start: int, content: np.ndarray) -> bool:
    """Whether a row's bytes from ``start`` are these."""
    return equal_memory(row.content.ctypes.data + start, content.ctypes.data, len(content))
