"""Checkpoints: written by the server, atomically, and read without unpickling code."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from byzshield_exp.errors import ConfigError

_KEYS = frozenset(
    {
        "step", "params", "optimizer", "scheduler", "state", "best_test_accuracy",
        "diverged_at_step", "bytes_in", "files_computed", "config",
    }
)  # fmt: skip


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old or the new content, never half."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write ``folder/step_00000120.pt`` and delete all but the newest ``keep`` checkpoints.

    Args:
        folder: made if missing.
        step: updates done.
        state: tensors, numbers and texts in dictionaries and lists.
        keep: checkpoints to keep, at least 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """All finished checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step_*.pt"))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"its part {damaged} is damaged")
        state: dict[str, Any] = torch.load(path, weights_only=True)
        missing = _KEYS - state.keys()
        if missing:
            raise ValueError(f"it has no {min(missing)}")
    except Exception as error:  # whatever a damaged file makes of the readers
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"the checkpoint {path} cannot be read ({reason}): delete it to resume from an older "
            "one or from the start"
        ) from error
    return state
