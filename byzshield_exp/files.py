"""Files that a crash or a full disk leaves whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Where results are kept that can be made again; ``BYZSHIELD_CACHE`` moves it."""
    folder = os.environ.get("BYZSHIELD_CACHE")
    return Path(folder) if folder else user_cache_path("byzshield_exp")


def expand_user(path: str) -> Path:
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
