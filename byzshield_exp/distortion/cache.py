"""Worst cases found before, on disk: read only if they prove themselves intact."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from byzshield_exp.assignments import Assignment
from byzshield_exp.files import atomic_file, cache_folder

VERSION = 1  # of the search: another version trusts none of the older results


def entry_path(assignment: Assignment, num_byzantine: int) -> Path:
    """Where the result for a placement and q is kept; ``BYZSHIELD_CACHE`` moves the folder."""
    files = assignment.files_of_worker.sort(dim=1).values
    key = hashlib.sha256(f"{VERSION} {tuple(files.shape)} {num_byzantine} ".encode())
    key.update(files.numpy().tobytes())
    return cache_folder() / f"{key.hexdigest()}.json"


def read(path: Path) -> dict[str, Any] | None:
    """The entry, or None if it is missing or damaged."""
    try:
        entry = json.loads(path.read_text())
        content = entry["content"]
        return dict(content) if entry["sha256"] == _digest(content) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, content: dict[str, Any]) -> None:
    """Keep a result; a folder that cannot be written costs only the next search."""
    entry = json.dumps({"content": content, "sha256": _digest(content)})
    with suppress(OSError), atomic_file(path, shared=True) as file:
        file.write(entry.encode())


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
