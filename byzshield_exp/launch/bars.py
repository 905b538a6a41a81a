"""Bars on a terminal while runs are done: how many are over, and how far each current one is."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from byzshield_exp.launch.manifest import duration
from byzshield_exp.results.outcome import ACCURACIES
from byzshield_exp.results.recorder import METRICS, read_records

_LOOK_S = 1.0
_TAIL = 1 << 16  # bytes of a run's newest records, of which one may be an evaluation


class Bars:
    """One bar for all runs, and one for each current run; lines are printed above them.

    Args of the constructor:
        folders: of all runs.
        is_shown: whether to draw at all.
        console: rich's; None: the terminal.
    """

    def __init__(self, folders: Sequence[Path], is_shown: bool, console: Any = None) -> None:
        from rich import progress
        from rich.table import Column

        name = Column(no_wrap=True, overflow="ellipsis")  # a run's name may be 200 characters long
        self._drawn = progress.Progress(
            progress.TextColumn("{task.description}", markup=False, table_column=name),
            progress.BarColumn(20), progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[unit]}, {task.elapsed:.0f} s"),
            progress.TextColumn("{task.fields[note]}"),
            console=console, disable=not is_shown, refresh_per_second=2, transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )  # fmt: skip
        named = [set(_parts(folder)) for folder in folders]
        self._shared = set.intersection(*named) if named else set()
        self._total, self._ended, self._start = len(folders), 0, time.monotonic()
        self._all = self._drawn.add_task("sweep", total=len(folders), unit="runs", note="")
        self._current: dict[Path, tuple[Any, int]] = {}  # its bar, its steps

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw the bars within, and leave the terminal as it was."""
        if self._drawn.disable:
            yield
            return
        over = threading.Event()
        looking = threading.Thread(target=self._watch, args=(over,), daemon=True)
        try:
            with suppress(OSError):  # the terminal is gone; the runs go on
                self._drawn.start()
            looking.start()
            yield
        finally:
            over.set()
            looking.join()
            with suppress(OSError):
                self._drawn.stop()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(_LOOK_S):
            self.update()

    def begin(self, folder: Path, steps: int) -> None:
        """Add the bar of a run."""
        own = [part for part in _parts(folder) if part not in self._shared]
        bar = self._drawn.add_task(",".join(own) or "default", total=steps, unit="steps", note="")
        self._current[folder] = bar, steps

    def end(self, folder: Path) -> None:
        """Count a run that is over, and remove its bar."""
        if folder in self._current:
            self._drawn.remove_task(self._current.pop(folder)[0])
        self._ended += 1

    def update(self) -> None:
        """Look how far the current runs are."""
        if self._drawn.disable:
            return
        done = float(self._ended)
        for folder, (bar, steps) in [*self._current.items()]:
            newest: dict[str, Any] = {"step": 0}
            with suppress(OSError):
                for record in read_records(folder / METRICS, _TAIL):
                    newest |= record
            named = [name for name in ACCURACIES if name in newest]
            found = [f"{name.replace('_', ' ')} {newest[name]:.4f}" for name in named]
            with suppress(KeyError):  # it is over by now
                self._drawn.update(bar, completed=newest["step"], note="".join(found))
                done += newest["step"] / max(1, steps)
        took = time.monotonic() - self._start
        left = f"{duration(took / done * (self._total - done))} left" if done else ""
        self._drawn.update(self._all, completed=self._ended, note=left)


def _parts(folder: Path) -> list[str]:
    return folder.name.split(",")
