"""Fetch official data sets with torchvision, one process at a time."""

import fcntl
import io
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from http.client import HTTPException
from pathlib import Path
from typing import TextIO

from byzshield_exp.datasets.official import OFFICIAL, quiet, reader, stored_files, svhn_folder
from byzshield_exp.errors import ConfigError, RunError, printable
from byzshield_exp.notices import say

LOCK = ".prepare.lock"
_TIMEOUT_S = 60.0  # without a byte


def prepare(dataset: str, root: Path, extra: bool = False) -> None:
    """Check what is there, and fetch the data set if something is missing or damaged.

    Args:
        dataset: a key of ``OFFICIAL``.
        root: ``dataset.root``.
        extra: SVHN's further training pictures too.

    Raises:
        ConfigError: if unpacked pictures that are there are not the official ones, or ``root``
            cannot be written.
        RunError: if the data set cannot be fetched.
    """
    _refuse_others(dataset, root)
    if _is_whole(dataset, root, extra):  # needs neither the lock nor the right to write
        say(f"{dataset}: all is there, in {root}")
        return
    with _alone_in(root):
        _refuse_others(dataset, root)
        if not _is_whole(dataset, root, extra):
            say(f"fetching {dataset} into {root}")
            _fetch(dataset, root, extra)
    say(f"{dataset}: done, in {root}")


def _is_whole(dataset: str, root: Path, extra: bool) -> bool:
    from torchvision.datasets.utils import check_integrity

    files = stored_files(dataset, root, extra)
    return all(check_integrity(path, md5) for path, md5 in files.items()) and not any(
        _wrong_idx(dataset, root)
    )


def _wrong_idx(dataset: str, root: Path) -> Iterator[tuple[Path, int]]:
    """Yield the unpacked files of MNIST that do not have the official size, and that size.

    torchvision checks the MD5 of packed files only, and takes any unpacked file for whole.
    """
    if not hasattr(reader(dataset), "resources"):
        return
    official = OFFICIAL[dataset]
    for path in stored_files(dataset, root):
        count = official.num_train if path.name.startswith("train") else official.num_test
        size = 16 + count * 28 * 28 if "images" in path.name else 8 + count
        if path.exists() and path.stat().st_size != size:
            yield path, size


def _refuse_others(dataset: str, root: Path) -> None:
    """Refuse unpacked pictures that are the user's own.

    A file of a wrong size beside its official archive is left over from unpacking that was cut.
    """
    from torchvision.datasets.utils import check_integrity

    for path, size in _wrong_idx(dataset, root):
        packed = path.with_name(f"{path.name}.gz")
        if not check_integrity(packed, dict(reader(dataset).resources)[packed.name]):
            raise ConfigError(
                f"{path} is not the official file ({path.stat().st_size} bytes instead of {size}): "
                "delete it to have that one fetched; a run reads what is there"
            )


def _fetch(dataset: str, root: Path, extra: bool) -> None:
    for path, _ in _wrong_idx(dataset, root):
        path.unlink()
    # a progress bar makes thousands of lines in a log
    told = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)  # torchvision sets none and would wait for ever
    try:
        with told, quiet():
            _download(dataset, root, extra)
    except (OSError, HTTPException, RuntimeError) as error:
        lines = printable(" ".join(str(error).split())) or type(error).__name__
        raise RunError(
            f"{dataset} cannot be fetched ({lines}): the same command tries again"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    if not _is_whole(dataset, root, extra):
        raise RunError(f"{dataset}: the archive lacks files, or unpacking it failed, in {root}")


def _download(dataset: str, root: Path, extra: bool) -> None:
    """Fetch without reading all pictures into memory, as most of torchvision's classes would."""
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    source = reader(dataset)
    if dataset == "svhn":
        for split in ("train", "test", *(["extra"] if extra else [])):
            url, name, md5 = source.split_list[split]
            download_url(url, svhn_folder(root), name, md5)
    elif dataset in ("cifar10", "cifar100"):
        download_and_extract_archive(source.url, root, filename=source.filename, md5=source.tgz_md5)
    else:
        source(root, train=False, download=True)


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Hold a lock on the folder that other machines which share it see too.

    It is a POSIX record lock (``fcntl.lockf``) on a file that stays: NFSv4, and so Amazon EFS,
    carries it to the server, and the system frees it when the process ends, however it ends.
    ``filelock`` would take a ``flock``, which some mounts (``local_lock=flock``) keep to
    themselves.
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
