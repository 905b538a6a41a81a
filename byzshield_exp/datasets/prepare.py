"""The folder of the data: what is missing in it, and that one process at a time fetches it."""

import fcntl
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from byzshield_exp.datasets.fetch import check, fetch
from byzshield_exp.datasets.official import Download, found
from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.files import atomic_file
from byzshield_exp.notices import say

LOCK = ".prepare.lock"


def prepare(dataset: str, root: Path, downloads: tuple[Download, ...]) -> None:
    """Check what is there; fetch, check and unpack what is missing.

    A file has its name only once it is whole and checked, so what has another size or checksum
    was put there by somebody else, or damaged later.

    Args:
        dataset: its name, for a person.
        root: ``dataset.root``.
        downloads: its files.

    Raises:
        ConfigError: if a file that is there is another one, or ``root`` cannot be written.
        RunError: if a file cannot be fetched.
    """
    for download in downloads:
        _check(root, download)
    if not _missing(root, downloads):
        say(f"{dataset}: all is there, in {root}")
        return
    with _alone_in(root):
        for download in _missing(root, downloads):
            _bring(root, download)
    say(f"{dataset}: done, in {root}")


def _check(root: Path, download: Download) -> None:
    for path, size in zip(download.gives, download.unpacked, strict=True):
        there = found(root, path)
        if there is not None and there.name == download.name:
            check(there, download.size, download.sha256)
        elif there is not None:
            check(there, size)


def _missing(root: Path, downloads: tuple[Download, ...]) -> list[Download]:
    return [one for one in downloads if any(found(root, path) is None for path in one.gives)]


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Hold a lock on the folder, which other machines that share it see too.

    It is a POSIX record lock (``fcntl.lockf``) on a file that stays: NFSv4 and so Amazon EFS
    carry it to the server, and the system frees it when the process ends, however it ends.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / LOCK).open("a")
    except OSError as error:
        raise ConfigError(f"dataset.root={root} cannot be written: {error}") from error
    with lock:
        try:
            _wait_for(lock, root)
        except OSError as error:
            raise RunError(f"{root / LOCK} cannot be locked: {error}") from error
        yield


def _wait_for(lock: TextIO, root: Path) -> None:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        say(f"waiting for another process that fetches data into {root}")
        fcntl.lockf(lock, fcntl.LOCK_EX)


def _bring(root: Path, download: Download) -> None:
    """Fetch a file and give it its name; unpack an archive, which never gets one.

    So an archive that has its name was put there by hand, and stays.
    """
    target = root / (download.name if download.is_archive else download.gives[0])
    partial = target.with_name(f".{target.name}.partial")
    if target.exists():
        check(target, download.size, download.sha256)
    else:
        fetch(download, partial)
    if not download.is_archive:
        partial.replace(target)
        return
    say(f"unpacking {target}: {len(download.gives)} files")
    _unpack(target if target.exists() else partial, root, download.gives)
    partial.unlink(missing_ok=True)


def _unpack(archive: Path, root: Path, members: tuple[str, ...]) -> None:
    """Write these members below ``root``, each whole or not at all; all others are passed over.

    Names come from our own table and only plain files are read, so that nothing that the archive
    says can lead out of the folder.
    """
    left = set(members)
    with tarfile.open(archive, "r:gz") as content:
        for member in content:
            if member.name not in left or not member.isreg():
                continue
            source = content.extractfile(member)
            if source is None:
                continue
            with source, atomic_file(root / member.name) as target:
                shutil.copyfileobj(source, target)
            left.remove(member.name)
    if left:
        raise RunError(f"{archive} has no file {min(left)}")
