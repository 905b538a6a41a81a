"""Record a run: metrics, TensorBoard events and a summary. Only the server writes them."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzshield_exp.files import write_atomically
from byzshield_exp.notices import warn
from byzshield_exp.results.journal import Journal, Outage

if TYPE_CHECKING:
    from byzshield_exp.assignments import Assignment
    from byzshield_exp.distortion import WorstCase

METRICS = "metrics.jsonl"
SUMMARY = "summary.json"


def to_json(value: Any) -> Any:
    """Convert a value to standard JSON: NaN and Inf become null, tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten ``{"a": {"b": 1}}`` to ``{"a.b": 1}``; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def read_records(path: Path, most: int = sys.maxsize) -> list[dict[str, Any]]:
    """Read a file of JSON lines, or its last bytes; skip lines that are damaged or cut.

    Args:
        path: the file.
        most: how many bytes to read.
    """
    records = []
    with path.open("rb") if path.exists() else BytesIO() as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        lines = file.read().splitlines()
    for line in lines:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
    return records


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a run, one per step."""
    return read_records(folder / METRICS)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Read the summary of a finished run; None if there is none that can be read."""
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return None
    return summary if "steps" in summary else None


class Recorder:
    """Writes one record a step to ``metrics.jsonl`` and the same numbers to TensorBoard.

    Records that a full or vanished disk does not take are kept and written later, with a warning.

    Args of the constructor:
        folder: the run's folder.
        first_step: the step to go on after; later records are dropped, as their steps run again.
        config: plain and resolved.
        assignment: who computes what.
        worst: the worst set of liars.
    """

    def __init__(
        self,
        folder: Path,
        first_step: int,
        config: Mapping[str, Any],
        assignment: "Assignment",
        worst: "WorstCase",
    ) -> None:
        from byzshield_exp.results.dashboard import Dashboard  # torch; readers do without

        self._folder, self._step = folder, first_step
        (folder / SUMMARY).unlink(missing_ok=True)  # an old one is of fewer steps
        kept = [record for record in read_metrics(folder) if record["step"] <= first_step]
        lines = "".join(json.dumps(record) + "\n" for record in kept)
        self._metrics = Journal(folder / METRICS, lines.encode())
        self._dashboard = Dashboard(folder, first_step, config, assignment, worst, kept)
        self._outages = {
            self._metrics: Outage(f"{folder / METRICS}"),
            self._dashboard.journal: Outage("the file of TensorBoard events"),
        }

    def step(
        self, record: Mapping[str, Any], rows: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        """Write one record.

        Args:
            record: ``record["step"]`` counts updates from 1.
            rows: numbers that TensorBoard shows as histograms, by name.
        """
        self._step = record["step"]
        self._metrics.add(json.dumps(to_json(record)).encode() + b"\n")
        self._dashboard.step(record, rows or {})
        for journal, outage in self._outages.items():
            outage.attempt(self._step, journal.write)

    def sync(self) -> None:
        """Bring all records to the disk, so that no checkpoint is newer than the last record.

        Raises:
            OSError: if the metrics cannot be written; the events are only a view of them.
        """
        events = self._dashboard.journal
        self._outages[events].attempt(self._step, events.sync)
        self._metrics.sync()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, and show that the run has ended.

        Raises:
            OSError: if the summary cannot be written.
        """
        write_atomically(
            self._folder / SUMMARY, (json.dumps(to_json(summary), indent=2) + "\n").encode()
        )
        self._dashboard.finish(summary)

    def close(self) -> None:
        """Write the waiting records and close the files; warn if records are lost."""
        for journal, outage in self._outages.items():
            if not outage.attempt(self._step, journal.close):
                warn(f"records that are lost: {journal.waiting}")
