"""Write files so that a crash or a full disk leaves them whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Return the folder for results that can be computed again; ``BYZSHIELD_CACHE`` moves it."""
    folder = os.environ.get("BYZSHIELD_CACHE")
    return Path(folder) if folder else user_cache_path("byzshield_exp")


def expand_user(path: str) -> Path:
    """Expand a leading ``~``."""
    return Path(os.path.expanduser(path))  # leaves the home of an unknown user as it is


@contextmanager
def atomic_file(path: Path, shared: bool = False) -> Iterator[BufferedWriter]:
    """Open a file to replace: readers and crashes see the old or the new content, never half.

    The folder is made if it is missing; nothing half-written stays behind.

    Args:
        path: the file.
        shared: whether other processes may write it at the same time; the last one wins.

    Raises:
        OSError: if the file cannot be written.
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
