"""Read from a run's own files how far it is and how it ended."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byzshield_exp.results import links
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.recorder import read_summary
from byzshield_exp.results.status import read_status

ACCURACIES = ("test_accuracy", "validation_accuracy")
FINISHED = ("done", "diverged")


def final_accuracy(summary: Mapping[str, Any]) -> tuple[str, float]:
    """Return which accuracy a summary has, one of ``ACCURACIES``, and its value in [0, 1]."""
    return next(
        (name, summary[f"final_{name}"]) for name in ACCURACIES if f"final_{name}" in summary
    )


def read_outcome(folder: Path) -> dict[str, Any]:
    """Read the state of a run, and what a finished run has measured.

    Args:
        folder: the run's folder.

    Returns:
        ``state`` (new, queued, running, stopped, failed, done, or diverged: NaN or Inf ended it),
        ``error`` (of a failed or stopped run, else empty), ``attempts`` (starts), ``seconds`` (of
        all attempts; None before the first has ended), ``test_accuracy`` and
        ``validation_accuracy`` (in [0, 1]; None unless evaluated on and finished), ``same_as``
        (name of the run that was computed, where this one cannot differ from it and links to its
        files; else None). Of a finished run also the other entries of its summary; ``steps`` is
        called ``steps_done``.

    Raises:
        ConfigError: if the folder cannot be read.
    """
    status, summary = read_status(folder), read_summary(folder)
    state = status.get("state", "done" if summary else "new")
    same_as = links.same_as(folder)
    run = folder.parent / same_as if same_as else folder
    if state == "running" and not RunFolder(run).in_use:
        state = "stopped"  # it was killed
    if state == "done" and summary and summary["diverged_at_step"] is not None:
        state = "diverged"
    found = {"state": state, "error": status.get("error") or ""}
    found |= {"attempts": status.get("attempts", 0), "seconds": status.get("seconds")}
    found |= {"same_as": same_as, **dict.fromkeys(ACCURACIES)}
    if state in FINISHED and summary:
        named = {"steps_done" if key == "steps" else key: summary[key] for key in summary}
        found |= {key.removeprefix("final_"): value for key, value in named.items()}
    return found
