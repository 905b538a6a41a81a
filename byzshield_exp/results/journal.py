"""Write results so that a full or vanished disk loses nothing."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from byzshield_exp.files import write_atomically
from byzshield_exp.notices import warn


class Outage:
    """A time in which something cannot be written; warns once at its start, once at its end.

    Args of the constructor:
        what: what is written, with an article: "the checkpoint".

    Attributes:
        what: what is written.
        error: error of the last attempt; None if it succeeded.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.error: OSError | None = None

    def attempt(self, step: int, write: Callable[[], object]) -> bool:
        """Call ``write``; return whether it succeeded, without an ``OSError``."""
        was, self.error = self.error, None
        try:
            write()
        except OSError as error:
            self.error = error
            if was is None:
                warn(
                    f"step {step}: {self.what} could not be written ({error}): the run goes on "
                    "and tries again"
                )
            return False
        if was is not None:
            warn(f"step {step}: {self.what} could be written again")
        return True


_MOST_RECENT = 1000  # records held in memory between two fsyncs


class Journal:
    """A file that grows by whole records, in order and each once, whatever the disk does.

    A record is kept in memory until an fsync has brought it to the disk. A file that was deleted,
    replaced or cut meanwhile is restored from the one that is still open.

    Args of the constructor:
        path: the file.
        content: the file's first bytes.
    """

    def __init__(self, path: Path, content: bytes = b"") -> None:
        self._path = path
        write_atomically(path, content)
        self._file = path.open("r+b", buffering=0)
        self._safe = self._end = len(content)  # bytes on the disk; bytes of whole records
        self._recent: list[bytes] = []  # records after the first _safe bytes
        self._written = 0  # how many of them are in the file

    @property
    def waiting(self) -> int:
        """How many records are not in the file yet."""
        return len(self._recent) - self._written

    def add(self, record: bytes) -> None:
        """Add a record for the next :meth:`write`."""
        self._recent.append(record)

    def write(self) -> None:
        """Write the waiting records.

        Raises:
            OSError: if that fails; they keep waiting.
        """
        if not self._is_in_place():
            self._restore()
        while self.waiting:
            self._append(self._recent[self._written])
        if len(self._recent) >= _MOST_RECENT:
            self._fsync()

    def sync(self) -> None:
        """Write the waiting records and bring them to the disk.

        Raises:
            OSError: if that fails; they keep waiting.
        """
        self.write()
        self._fsync()

    def close(self) -> None:
        """Sync and close the file.

        Raises:
            OSError: if the waiting records are lost.
        """
        try:
            self.sync()
        finally:
            self._file.close()

    def _append(self, record: bytes) -> None:
        done, descriptor = 0, self._file.fileno()
        try:
            while done < len(record):
                done += os.pwrite(descriptor, record[done:], self._end + done)
        except BaseException:
            with suppress(OSError):  # half a record; the next attempt writes over it
                os.ftruncate(descriptor, self._end)
            raise
        self._end += len(record)
        self._written += 1

    def _fsync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError:
            self._end, self._written = self._safe, 0  # nobody knows which of them reached the disk
            raise
        self._safe, self._written = self._end, 0
        self._recent.clear()

    def _is_in_place(self) -> bool:
        try:
            held, there = os.fstat(self._file.fileno()), self._path.stat()
        except OSError:
            return False
        return os.path.samestat(held, there) and held.st_size >= self._end

    def _restore(self) -> None:
        history = self._history()
        write_atomically(self._path, history)
        self._file.close()
        self._file = self._path.open("r+b", buffering=0)
        self._safe = self._end = len(history)
        self._written = 0

    def _history(self) -> bytes:
        """Read the first ``_safe`` bytes from the open file, or from the one at its path."""
        content = b""
        with suppress(OSError):  # a stale NFS handle
            self._file.seek(0)
            content = self._file.read(self._safe)
        if len(content) < self._safe and self._path.exists():
            content = self._path.read_bytes()[: self._safe]
        if len(content) < self._safe:
            warn(f"{self._path} was deleted: what it had up to now is lost")
            return b""
        return content
