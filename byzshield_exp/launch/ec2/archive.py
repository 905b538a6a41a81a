"""Folders as tar archives: how a host packs one, and how it is laid down here.

A host may have been taken over: what it sends is plain files, within bounds, or is refused.
"""

import os
import shlex
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO

from byzshield_exp.errors import RunError, first_line

MAX_BYTES = 50_000_000_000  # of a folder; more than ``aws s3 cp`` brings of a stream
_MAX_MEMBERS = 100_000
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_MOVED_LAST = "status.json"  # says that a run is done: it must not be there before the rest is


def pack_command(source: str) -> str:
    """A shell command that writes the files of a folder to its stdout.

    Files that are being written (``.name.partial``) stay out; one that grows meanwhile is taken as
    far as it goes.
    """
    tar = "tar -cf - --exclude='.*.partial' ."
    return f"cd {shlex.quote(source)} || exit 3; {tar} || [ $? -eq 1 ]"


def unpack(archive: IO[bytes], target: Path) -> None:
    """Lay the files of an archive down in a folder, each whole, ``status.json`` last.

    Raises:
        RunError: if the archive is damaged, holds what is no plain file of that folder or too
            much, or if the files cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetched-") as folder:
            _extract(archive, target, Path(folder))
            _move_files(Path(folder), target)
    except OSError as error:
        raise RunError(f"what {target} should hold cannot be written: {error}") from error


def _extract(archive: IO[bytes], target: Path, folder: Path) -> None:
    left = MAX_BYTES
    try:
        with tarfile.open(fileobj=archive, mode="r:") as content:
            for number, member in enumerate(content):
                left -= member.size
                if member.type not in _PLAIN or member.size < 0 or member.issparse():
                    raise tarfile.TarError(f"{member.name!r} is no plain file")
                if left < 0 or number >= _MAX_MEMBERS:
                    raise tarfile.TarError("it is too large")
                place = folder / _safe_path(member.name)
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                data = content.extractfile(member)
                assert data is not None
                with place.open("xb") as file:
                    shutil.copyfileobj(data, file)
    except OSError:
        raise
    except Exception as error:  # tarfile meets odd archives with errors of many kinds
        raise RunError(f"what {target} should hold came damaged: {first_line(error)}") from error


def _safe_path(name: str) -> PurePosixPath:
    """A member's place; tarfile itself refuses others only from Python 3.11.4 on.

    Raises:
        TarError: if that is not within the archive's folder.
    """
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts:
        raise tarfile.TarError(f"{name!r} is outside")
    return place


def _move_files(folder: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    came = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(came, key=lambda path: path.name == _MOVED_LAST):
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
