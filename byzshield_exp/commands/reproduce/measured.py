"""Read from our runs what is compared with a paper."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml

from byzshield_exp.results.outcome import ACCURACIES, FINISHED, read_outcome
from byzshield_exp.results.recorder import read_metrics

_LAST = 5  # evaluations
# The phases of figure 12 of ByzShield, and ours.
_PHASES = {
    "computation": ("data", "compute"),
    "communication": ("send", "gather", "deliver"),
    "aggregation": ("vote", "aggregate", "update"),
}


@dataclass(frozen=True)
class MeasuredRun:
    """One of our runs.

    Attributes:
        folder: where it is.
        curve: which curve of its figure it is.
        seed: its seed; None if it has not begun.
        state: as :func:`~byzshield_exp.results.outcome.read_outcome` has it.
        error: why it failed, or nothing.
        same_as: name of the run that was computed, where this one cannot differ from it.
        evaluations: steps and accuracies in [0, 1].
        values: by measure: ``final``, ``best``, ``last5`` (mean of the last five evaluations) and
            ``lowest`` (from the first attack on), in [0, 1]; empty unless it is finished.
        phases: by phase of figure 12, median seconds of a step after the first.
        seconds: of all its attempts; None if unknown.
        versions: of the packages that it ran with.
    """

    folder: Path
    curve: str
    seed: int | None
    state: str
    error: str
    same_as: str | None
    evaluations: tuple[tuple[int, float], ...]
    values: dict[str, float]
    phases: dict[str, float]
    seconds: float | None
    versions: dict[str, str]


def measured(curve: str, folder: Path) -> MeasuredRun:
    """Read a run, in whatever state it is."""
    outcome, records, config = read_outcome(folder), read_metrics(folder), _config(folder)
    evaluations = tuple(
        (record["step"], record[name])
        for record in records
        for name in ACCURACIES
        if record.get(name) is not None
    )
    start = (config.get("adversary") or {}).get("start", 1)
    is_over = outcome["state"] in FINISHED
    return MeasuredRun(
        folder=folder,
        curve=curve,
        seed=config.get("seed"),
        state=outcome["state"],
        error=outcome["error"],
        same_as=outcome["same_as"],
        evaluations=evaluations,
        values=_values(evaluations, outcome, start) if is_over and evaluations else {},
        phases=_phases(records[1:]),
        seconds=outcome["seconds"],
        versions=outcome.get("versions", {}),
    )


def _config(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, yaml.YAMLError):
        return dict(yaml.safe_load((folder / "config.yaml").read_text()))
    return {}


def _values(
    evaluations: tuple[tuple[int, float], ...], outcome: Mapping[str, Any], start: int
) -> dict[str, float]:
    accuracies = [accuracy for _, accuracy in evaluations]
    after = [accuracy for step, accuracy in evaluations if step >= start]
    final = next(outcome[name] for name in ACCURACIES if outcome[name] is not None)
    return {
        "final": final,
        "best": max(accuracies),
        "last5": mean(accuracies[-_LAST:]),
        "lowest": min(after, default=final),
    }


def _phases(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    seconds = [record["seconds"] for record in records if "seconds" in record]
    if not seconds:
        return {}
    return {
        phase: median(sum(step.get(part, 0.0) for part in parts) for step in seconds)
        for phase, parts in _PHASES.items()
    }
