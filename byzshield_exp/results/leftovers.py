"""Start a run anew in a folder that holds results: remove them, or keep them aside."""

import shutil
from collections.abc import Iterator
from pathlib import Path

ASIDE = "replaced"  # in a run's folder: what other code of the user's had done
_WRITTEN = (  # the first one first: a run resumes from its checkpoints
    "checkpoints", "summary.json", "status.json", "metrics.jsonl", "log.txt", "evaluations.jsonl",
    "config.yaml", "job.json", ".*.partial",
)  # fmt: skip
_VIEWS = ("events.out.tfevents.*", "evaluations", "profile")  # made of what else is written


def is_written(folder: Path) -> bool:
    """Whether a run has written anything here."""
    return any(_found(folder, ASIDE))


def remove(folder: Path) -> None:
    """Remove what a run, and those before it, have written, and nothing else.

    Raises:
        OSError: if something cannot be removed.
    """
    for path in _found(folder, ASIDE):
        _delete(path)


def set_aside(folder: Path) -> None:
    """Move what a run has written to ``replaced``, in place of what is there.

    Raises:
        OSError: if something cannot be moved.
    """
    _delete(folder / ASIDE)
    (folder / ASIDE).mkdir()
    for path in _found(folder):
        if any(path.match(pattern) for pattern in _VIEWS):
            _delete(path)  # TensorBoard would show a second run
        else:
            path.rename(folder / ASIDE / path.name)


def _found(folder: Path, *more: str) -> Iterator[Path]:
    for pattern in (*_WRITTEN, *_VIEWS, *more):
        yield from sorted(folder.glob(pattern))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
