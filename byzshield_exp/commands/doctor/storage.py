"""Whether runs can use a folder: writing, renaming, locks between processes, space."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from byzshield_exp.commands.doctor.finding import Finding, worst

_LITTLE, _TOO_LITTLE = 5 << 30, 100 << 20  # bytes free
_LOCK_S = 20.0  # time for a process to try a lock
_LOCKS = {"flock": fcntl.flock, "record lock": fcntl.lockf}  # runs take one, prepare the other
_TRY = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    try:
        getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        sys.exit(3)
"""


def folder(key: str, path: Path, is_read_only: bool = False) -> Finding:
    """Check a folder; if it does not exist yet, the nearest one above it.

    Args:
        key: its key in the configuration.
        path: the folder.
        is_read_only: whether runs only read it.
    """
    where = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    said = [str(path)]
    notes: list[str] = []
    problems: list[str] = []
    if not where.is_dir():
        return Finding(key, "problem", f"{path}: {where} is no folder", f"choose another {key}")
    if where != path.absolute():
        said.append(f"not there yet, checked {where}")
        if is_read_only:
            notes.append("byzshield prepare fetches data sets into it")
    kind, options = file_system(where)
    said.append(kind)
    if kind.startswith("nfs") and ({"nolock", "local_lock=all", "local_lock=flock"} & options):
        problems.append("mount it without nolock: locks do not reach the other machines")
    if is_read_only and not os.access(where, os.W_OK):
        said.append("read only")
    else:
        _check_writing(key, where, said, notes, problems)
    return worst(key, said, notes, problems)


def _check_writing(
    key: str, where: Path, said: list[str], notes: list[str], problems: list[str]
) -> None:
    """Try to write, and look at the space; what is found is added to the three lists."""
    try:
        wrong = _tried(where)
        said += [] if wrong or problems else ["write, fsync, rename and locks work"]
        problems += wrong
    except OSError as error:
        problems.append(f"{error.strerror}: choose another {key}, or its rights")
    free = shutil.disk_usage(where).free
    said.append(f"{free / 2**30:,.1f} GiB free")
    if free < _LITTLE:
        (problems if free < _TOO_LITTLE else notes).append("make room: checkpoints are kept here")


def _tried(where: Path) -> list[str]:
    """Write, rename and lock in a temporary folder; return what does not work.

    Raises:
        OSError: if the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=where, prefix=".byzshield-doctor-") as made:
        old, new = Path(made) / "old", Path(made) / "new"
        new.write_bytes(b"new")
        with old.open("wb") as file:
            file.write(b"old")
            file.flush()
            os.fsync(file.fileno())
        old.replace(new)
        wrong = [] if new.read_bytes() == b"old" else ["a renamed file has other content"]
        return wrong + [text for name in _LOCKS if (text := _lock(Path(made) / "lock", name))]


def _lock(path: Path, name: str) -> str:
    """Try a kind of lock: another process must get it only once it is free."""
    try:
        with path.open("a") as file:
            _LOCKS[name](file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            was_kept_out = _other(path, name) == 3
        got_it = _other(path, name) == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no {name} here ({error}): two runs may write one folder"
    return "" if was_kept_out and got_it else f"a {name} does not keep other processes out"


def _other(path: Path, name: str) -> int:
    """Try the lock in another process; its exit code is 3 if the lock is held."""
    asked = [sys.executable, "-I", "-S", "-c", _TRY, str(path), _LOCKS[name].__name__]
    return subprocess.run(asked, capture_output=True, timeout=_LOCK_S).returncode


def file_system(path: Path) -> tuple[str, frozenset[str]]:
    """Return the type and the mount options of the file system that a path is on."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:  # /proc is not mounted
        mounts = []
    best, found = "", ("unknown file system", frozenset[str]())
    resolved = path.resolve()
    for mount in mounts:  # of two at the same place the later one hides the other
        if resolved.is_relative_to(mount.mountpoint) and len(mount.mountpoint) >= len(best):
            best, found = mount.mountpoint, (mount.fstype, frozenset(mount.opts.split(",")))
    return found
