"""What a run leaves behind: metrics, TensorBoard events, a summary. Only the server writes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byzshield_exp.checkpoint import write_atomically

METRICS = "metrics.jsonl"
SUMMARY = "summary.json"


def to_json(value: Any) -> Any:
    """Standard JSON: NaN and Inf become null, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, one per step, up to the first line that is damaged or half written."""
    path = folder / METRICS
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run, None if there is none that can be read."""
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return None
    return summary if "steps" in summary else None


class Recorder:
    """Writes one record a step to ``metrics.jsonl`` and the same numbers to TensorBoard.

    Args of the constructor:
        folder: the run's folder.
        first_step: records after it are of a step that will be done again, and are dropped.
        config: for TensorBoard's text and hparams.
    """

    def __init__(self, folder: Path, first_step: int, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow; workers never need it

        self._folder = folder
        (folder / SUMMARY).unlink(missing_ok=True)  # it would be of fewer steps
        kept = [record for record in read_metrics(folder) if record["step"] <= first_step]
        lines = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(folder / METRICS, lines.encode())
        self._file = (folder / METRICS).open("a")
        self._events = SummaryWriter(str(folder), purge_step=first_step + 1)
        self._config = config
        if first_step == 0:
            text = json.dumps(to_json(config), indent=2)
            self._events.add_text("config", f"```json\n{text}\n```", 0)

    def step(self, record: Mapping[str, Any]) -> None:
        """Write one record; ``record["step"]`` counts updates from 1."""
        self._file.write(json.dumps(to_json(record)) + "\n")
        self._file.flush()
        for name, value in flatten(record).items():
            if isinstance(value, int | float) and name != "step":
                self._events.add_scalar(name.replace(".", "/"), value, record["step"])

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and the hparams with the final accuracy."""
        from torch.utils.tensorboard.summary import hparams

        write_atomically(
            self._folder / SUMMARY, (json.dumps(to_json(summary), indent=2) + "\n").encode()
        )
        values = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in flatten(self._config).items()
        }
        name = "hp/final_test_accuracy"
        for part in hparams(values, {name: summary["final_test_accuracy"]}):
            self._events.file_writer.add_summary(part)  # type: ignore[attr-defined]
        self._events.add_scalar(name, summary["final_test_accuracy"], summary["steps"])

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        self._events.close()
