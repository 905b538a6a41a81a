"""Record evaluations: one line for each checkpoint, and a view of them for TensorBoard.

The view is one file; every evaluator that starts makes it again from the lines.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from byzshield_exp.errors import ConfigError
from byzshield_exp.results.events import Events
from byzshield_exp.results.journal import Journal, Outage
from byzshield_exp.results.recorder import read_records, to_json
from byzshield_exp.results.tags import scalars

EVALUATIONS = "evaluations.jsonl"
_EVENTS = "evaluations"
_SHOWN = ("test_accuracy", "test_loss", "test_top5")
_FIELDS = frozenset({"step", "time", *_SHOWN})


class Evaluations:
    """``evaluations.jsonl`` of one run, written by one evaluator at a time.

    Args of the constructor:
        folder: made if missing; a line that a killed evaluator left half written is removed.

    Attributes:
        done: the steps that are evaluated.

    Raises:
        ConfigError: if the file cannot be written, or another evaluator writes it.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # a soft lock would outlive an evaluator that is killed
            self._lock = FileLock(folder / f".{EVALUATIONS}.lock", fallback_to_soft=False)
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise ConfigError(f"output={folder} is in use by another evaluator") from error
        except OSError as error:
            raise ConfigError(f"output={folder} cannot be written: {error}") from error
        kept = [record for record in read_records(folder / EVALUATIONS) if record.keys() >= _FIELDS]
        self.done = {record["step"] for record in kept}
        lines = "".join(json.dumps(record) + "\n" for record in kept)
        self._journal = Journal(folder / EVALUATIONS, lines.encode())
        self._events = Events(folder / _EVENTS, name=_EVENTS)
        for record in kept:
            self._show(record)
        self._outages = {
            self._journal: Outage(f"{folder / EVALUATIONS}"),
            self._events.journal: Outage("the file of TensorBoard events"),
        }

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one record; on a full disk it waits for the next record or the end."""
        self.done.add(record["step"])
        self._journal.add(json.dumps(to_json(record)).encode() + b"\n")
        self._show(record)
        self.retry(record["step"])

    def _show(self, record: Mapping[str, Any]) -> None:
        values = scalars({name: record[name] for name in _SHOWN})
        when = datetime.fromisoformat(record["time"]).timestamp()
        self._events.add_scalars(values, record["step"], when)

    def retry(self, step: int) -> None:
        """Write the waiting records."""
        for journal, outage in self._outages.items():
            outage.attempt(step, journal.sync)

    def close(self) -> int:
        """Write the waiting records and close the files; return how many records are lost."""
        for journal, outage in self._outages.items():
            outage.attempt(max(self.done, default=0), journal.close)
        self._lock.release()
        return self._journal.waiting
