"""Files that a crash or a full disk leaves whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from platformdirs import user_cache_path

from byzshield_exp.notices import warn

_MOST_RECENT = 1000  # records held in memory between two fsyncs


def cache_folder() -> Path:
    """Where results are kept that can be made again; ``BYZSHIELD_CACHE`` moves it."""
    folder = os.environ.get("BYZSHIELD_CACHE")
    return Path(folder) if folder else user_cache_path("byzshield_exp")


def typed_path(path: str) -> Path:
    """The path that a person means: one that starts with ``~`` is below a home folder."""
    return Path(os.path.expanduser(path))  # leaves the home of an unknown user as it is


@contextmanager
def atomic_file(path: Path, shared: bool = False) -> Iterator[BufferedWriter]:
    """A file to write: a reader, or a crash, sees the old or the new content, never half.

    The folder is made if it is missing; nothing half-written is left behind.

    Args:
        path: the file.
        shared: whether other processes may write it at the same time; the last one counts.

    Raises:
        OSError: if it cannot be written.
    """
    owner = f".{secrets.token_hex(8)}" if shared else ""
    partial = path.with_name(f".{path.name}{owner}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_atomically(path: Path, content: bytes, shared: bool = False) -> None:
    """Write a file as :func:`atomic_file` does."""
    with atomic_file(path, shared) as file:
        file.write(content)


class Journal:
    """A file that grows by whole records, in order and each once, whatever the disk does.

    A record is kept in memory until an fsync has brought it to the disk. A file that was deleted,
    replaced or cut meanwhile is made again from the one that is still held open.

    Args of the constructor:
        path: the file.
        content: what it starts with.
    """

    def __init__(self, path: Path, content: bytes = b"") -> None:
        self._path = path
        write_atomically(path, content)
        self._file = path.open("r+b", buffering=0)
        self._safe = self._end = len(content)  # bytes on the disk; bytes of whole records
        self._recent: list[bytes] = []  # records after the first _safe bytes
        self._written = 0  # so many of them are in the file

    @property
    def waiting(self) -> int:
        """How many records are not in the file."""
        return len(self._recent) - self._written

    def add(self, record: bytes) -> None:
        """One more record; :meth:`write` writes it."""
        self._recent.append(record)

    def write(self) -> None:
        """Write what waits.

        Raises:
            OSError: if it cannot be written; it waits on.
        """
        if not self._is_in_place():
            self._restore()
        while self.waiting:
            self._append(self._recent[self._written])
        if len(self._recent) >= _MOST_RECENT:
            self._fsync()

    def sync(self) -> None:
        """Write what waits and bring it to the disk.

        Raises:
            OSError: if that fails; it waits on.
        """
        self.write()
        self._fsync()

    def close(self) -> None:
        """Sync and close.

        Raises:
            OSError: if what waits is lost.
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
            self._end, self._written = self._safe, 0  # which of them got there is not known
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
        """The first ``_safe`` bytes, from the file held open or the one that is there now."""
        content = b""
        with suppress(OSError):  # a stale handle
            self._file.seek(0)
            content = self._file.read(self._safe)
        if len(content) < self._safe and self._path.exists():
            content = self._path.read_bytes()[: self._safe]
        if len(content) < self._safe:
            warn(f"{self._path} was deleted: what it had up to now is lost")
            return b""
        return content
