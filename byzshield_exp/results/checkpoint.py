"""Write checkpoints atomically, on the server, and read them without unpickling code.

A file holds what ``torch.save`` writes, then a last line with its SHA-256. The zip's own checksums
are not enough: a flipped bit in its directory makes torch leave a tensor uninitialised.
"""

from collections.abc import Collection
from contextlib import suppress
from hashlib import sha256
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, NamedTuple

from byzshield_exp.errors import ConfigError, first_line
from byzshield_exp.files import atomic_file

FOLDER = "checkpoints"  # in the folder of a run
_KEYS = frozenset(
    {
        "step", "data", "params", "statistics", "optimizer", "scheduler", "state", "best_accuracy",
        "diverged_at_step", "bytes_in", "files_computed", "config",
    }
)  # fmt: skip
_LAST_LINE = b"\nsha256 %s\n"
_LAST_LINE_BYTES = len(_LAST_LINE % sha256().hexdigest().encode())
_CHUNK = 2**20  # bytes


class Newest(NamedTuple):
    """The newest checkpoint that can be read.

    Attributes:
        state: its content; None if there is no checkpoint.
        damaged: newer checkpoints that cannot be read.
        notes: one line for each of the damaged ones.
    """

    state: dict[str, Any] | None
    damaged: tuple[Path, ...]
    notes: tuple[str, ...]


def save(
    folder: Path, step: int, state: dict[str, Any], keep: int, damaged: Collection[Path] = ()
) -> Path:
    """Write ``folder/step_00000120.pt`` and delete all but the newest ``keep`` checkpoints.

    Args:
        folder: made if missing.
        step: updates done.
        state: tensors, numbers and texts in dictionaries and lists.
        keep: checkpoints to keep, at least 1.
        damaged: checkpoints that cannot be read; they are deleted.

    Raises:
        OSError: if the checkpoint cannot be written; then the old ones stay.
    """
    path = folder / f"step_{step:08d}.pt"
    for partial in folder.glob(".step_*.partial"):  # left by a process that was killed
        _delete(partial)
    write(path, state)
    useless = set(damaged) - {path}
    for old in [*useless, *[one for one in checkpoints(folder) if one not in useless][:-keep]]:
        _delete(old)
    return path


def write(path: Path, state: Any) -> None:
    """Write one checkpoint with its checksum.

    Raises:
        OSError: if the file cannot be written.
    """
    import torch  # readers of results do without

    with atomic_file(path) as file:
        hashed = _HashedFile(file)
        try:
            torch.save(state, hashed)  # type: ignore[arg-type]  # it calls only these methods
        except RuntimeError as error:
            if hashed.error is None:
                raise
            raise hashed.error from error  # torch hides a full disk behind an error of its own
        file.write(_LAST_LINE % hashed.sha256.hexdigest().encode())


def checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a folder, oldest first."""
    found = [path for path in folder.glob("step_*.pt") if path.stem[len("step_") :].isdecimal()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """Read from a checkpoint's name how many updates were done when it was written."""
    return int(path.stem.removeprefix("step_"))


def newest(folder: Path) -> Newest:
    """Read the newest checkpoint of a folder that can be read.

    Raises:
        ConfigError: if there are checkpoints, and none can be read.
    """
    errors: dict[Path, ConfigError] = {}
    for path in reversed(checkpoints(folder)):
        try:
            state = load(path)
        except ConfigError as error:
            errors[path] = error
        else:
            notes = tuple(f"{error}: an older one is used" for error in errors.values())
            return Newest(state, tuple(errors), notes)
    if errors:
        first, *others = errors.values()
        older = f", nor can {len(others)} older ones" if others else ""
        raise ConfigError(f"{first}{older}: start anew with overwrite=true") from first
    return Newest(None, (), ())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; its tensors stay in the host's memory.

    Raises:
        ConfigError: if the file cannot be read or is damaged.
    """
    import torch

    try:
        with path.open("rb") as file:
            _check(file)
            file.seek(0)
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        missing = _KEYS - state.keys()
        if missing:
            raise ValueError(f"it has no {min(missing)}")
    except MemoryError:
        raise
    except Exception as error:  # a foreign file can make torch raise anything
        raise ConfigError(f"the checkpoint {path} cannot be read ({first_line(error)})") from error
    return state


class _HashedFile:
    """A file for ``torch.save`` that keeps the hash of the content, and the disk's error."""

    def __init__(self, file: BufferedWriter) -> None:
        self._file = file
        self.sha256 = sha256()
        self.error: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:
        self.sha256.update(content)
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _check(file: BufferedReader) -> None:
    """Compare the content with the checksum behind it.

    Raises:
        ValueError: if they differ.
    """
    left = max(0, file.seek(0, 2) - _LAST_LINE_BYTES)
    file.seek(0)
    found = sha256()
    while left > 0:
        content = file.read(min(left, _CHUNK))
        if not content:
            raise ValueError("it is cut short")
        found.update(content)
        left -= len(content)
    if file.read() != _LAST_LINE % found.hexdigest().encode():
        raise ValueError("its content does not match its checksum")


def _delete(path: Path) -> None:
    with suppress(OSError):  # the next save tries again
        path.unlink()
