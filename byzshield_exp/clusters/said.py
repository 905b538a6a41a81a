"""The rows that a process sends."""

from torch import Tensor

from byzshield_exp.rows.digests import row_digest
from byzshield_exp.rows.finite import is_finite


class Said:
    """Rows and digests by worker and file; workers with the same row share its memory."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], Tensor] = {}
        self._digests: dict[tuple[int, int], tuple[bytes, bool]] = {}  # by file and memory

    def clear(self) -> None:
        """Forget all rows, at the beginning of a step."""
        self._rows.clear()
        self._digests.clear()

    def keep(self, worker: int, file: int, row: Tensor, step: int) -> tuple[bytes, bool]:
        """Keep a row until it is fetched; return its digest and whether it is finite."""
        self._rows[worker, file] = row
        key = file, row.data_ptr()
        if key not in self._digests:
            finite = is_finite(row)
            self._digests[key] = row_digest(row, step, file, finite), finite
        return self._digests[key]

    def digest(self, worker: int, file: int) -> tuple[bytes, bool]:
        """Return the digest of a row that was kept, and whether it is finite."""
        return self._digests[file, self._rows[worker, file].data_ptr()]

    def row(self, worker: int, file: int) -> tuple[Tensor | None, bytes | None]:
        """Return a row that was kept and its digest; None where there is none."""
        row = self._rows.get((worker, file))
        return (None, None) if row is None else (row, self._digests[file, row.data_ptr()][0])


class HostCopies:
    """Rows in host memory; one on a GPU is copied once a step, whoever sends it."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int], Tensor] = {}  # by file and memory

    def clear(self) -> None:
        """Forget all copies, at the beginning of a step."""
        self._copies.clear()

    def of(self, file: int, row: Tensor) -> Tensor:
        """Return the row itself if it is in host memory, else its copy."""
        if row.device.type == "cpu":
            return row
        key = file, row.data_ptr()
        if key not in self._copies:
            self._copies[key] = row.cpu()
        return self._copies[key]
