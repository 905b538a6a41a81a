"""Tar archives of folders: a host packs one, and it is extracted here.

A host may be compromised, so an archive is refused unless it holds plain files within bounds.
"""

import os
import shlex
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO

from byzshield_exp.errors import RunError, first_line

MAX_BYTES = 50_000_000_000  # per folder; ``aws s3 cp`` uploads no longer stream
_MAX_MEMBERS = 100_000
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_MOVED_LAST = "status.json"  # it marks a run as done, so all else must be there


def pack_command(source: str) -> str:
    """Return a shell command that writes the files of a folder to stdout as a tar archive.

    Files still being written (``.name.partial``) are left out. GNU tar exits with 1 where a file
    changes while it is read; that is accepted.
    """
    tar = "tar -cf - --exclude='.*.partial' ."
    return f"cd {shlex.quote(source)} || exit 3; {tar} || [ $? -eq 1 ]"


def unpack(archive: IO[bytes], target: Path) -> None:
    """Extract an archive into a folder; each file appears whole, ``status.json`` last.

    Raises:
        RunError: if the archive is damaged or too large, holds anything but plain files of that
            folder, or cannot be written.
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
    except Exception as error:  # tarfile raises many types for a malformed archive
        raise RunError(f"what {target} should hold came damaged: {first_line(error)}") from error


def _safe_path(name: str) -> PurePosixPath:
    """Return a member's path; tarfile itself checks it only from Python 3.11.4 on.

    Raises:
        TarError: if the path leads out of the archive's folder.
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
