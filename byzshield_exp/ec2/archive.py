"""Folders as tar archives: how a host packs one, and how it is laid down here."""

import os
import shlex
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from byzshield_exp.errors import RunError, first_line

_LAST = "status.json"  # says that a run is done: it must not be there before the rest is


def packing(source: str) -> str:
    """A shell command that writes the files of a folder to its stdout.

    Files that are being written (``.name.partial``) stay out; one that grows meanwhile is taken as
    far as it goes.
    """
    tar = "tar -cf - --exclude='.*.partial' ."
    return f"cd {shlex.quote(source)} || exit 3; {tar} || [ $? -eq 1 ]"


def unpack(archive: IO[bytes], target: Path) -> None:
    """Lay the files of an archive down in a folder, each whole, ``status.json`` last.

    Raises:
        RunError: if the archive is damaged, or holds what is no plain file of that folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".fetched-") as folder:
        try:
            with tarfile.open(fileobj=archive, mode="r:") as content:
                content.extractall(folder, filter="data")
        except (tarfile.TarError, OSError) as error:
            raise RunError(
                f"what {target} should hold came damaged: {first_line(error)}"
            ) from error
        came = [
            path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink()
        ]
        for path in sorted(came, key=lambda path: path.name == _LAST):
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
