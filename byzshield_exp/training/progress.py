"""Progress while rank 0 trains: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from typing import Any

from byzshield_exp.notices import is_echoed, note, say


class Progress:
    """Shows steps, loss and accuracy.

    Args of the constructor:
        done: steps.
        steps: that there will be.
        eval_split: what is evaluated on, ``test`` or ``validation``.
    """

    def __init__(self, done: int, steps: int, eval_split: str = "test") -> None:
        self._steps, self._split = steps, eval_split
        self._bar: Any = None
        if is_echoed() and sys.stdout.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("training"), BarColumn(), MofNCompleteColumn(),
                TimeRemainingColumn(), TextColumn("{task.description}"),
            )  # fmt: skip
            self._task = self._bar.add_task("", total=steps, completed=done)
            self._bar.start()

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Show an evaluation."""
        line = (
            f"step {record['step']}/{self._steps}  loss {record['loss']:.4f}  "
            f"{self._split} accuracy {record[f'{self._split}_accuracy']:.4f}"
        )
        if self._bar is None:
            say(line)
        else:
            note(line)
            self._bar.update(self._task, description=line)

    def advance(self, record: Mapping[str, Any]) -> None:
        """Count one more step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"])

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
