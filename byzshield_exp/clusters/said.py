"""The rows that a process has said the digests of."""

from torch import Tensor

from byzshield_exp.rows.digests import row_digest
from byzshield_exp.rows.finite import is_finite


class Said:
    """Rows by worker and file, and their digests; several workers share the memory of a row."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], Tensor] = {}
        self._digests: dict[tuple[int, int], tuple[bytes, bool]] = {}  # by file and memory

    def clear(self) -> None:
        """Forget all: a step begins."""
        self._rows.clear()
        self._digests.clear()

    def keep(self, worker: int, file: int, row: Tensor, step: int) -> tuple[bytes, bool]:
        """Keep a row for whoever asks for it; its digest, and whether it is finite."""
        self._rows[worker, file] = row
        key = file, row.data_ptr()
        if key not in self._digests:
            finite = is_finite(row)
            self._digests[key] = row_digest(row, step, file, finite), finite
        return self._digests[key]

    def row(self, worker: int, file: int) -> tuple[Tensor | None, bytes | None]:
        """A row that was kept and its digest; None where there is none."""
        row = self._rows.get((worker, file))
        return (None, None) if row is None else (row, self._digests[file, row.data_ptr()][0])
