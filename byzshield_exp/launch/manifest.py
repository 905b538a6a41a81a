"""Keep ``sweep.csv``: one row for each run of this sweep and of earlier ones in its folder."""

import csv
import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from filelock import FileLock

from byzshield_exp.errors import ConfigError
from byzshield_exp.files import expand_user, write_atomically
from byzshield_exp.launch.sweep_points import Point
from byzshield_exp.notices import say
from byzshield_exp.results.outcome import ACCURACIES, FINISHED, read_outcome
from byzshield_exp.results.recorder import flatten

MANIFEST = "sweep.csv"
_RESULTS = ("state", "same_as", *ACCURACIES, "epsilon_hat", "seconds", "attempts", "error")
_LOOK_S = 2.0
_FINAL_STATES = (*FINISHED, "failed", "stopped", "invalid")


class Manifest:
    """The table of a sweep; one in each output_dir, if several are swept.

    Args of the constructor:
        points: points of the sweep.
        output_dir: folder of the table, for points that cannot run.

    Attributes:
        keys: the settings that were typed, or that a curve has.
    """

    def __init__(self, points: Sequence[Point], output_dir: str) -> None:
        self._points = points
        folders = [point.job.folder.parent if point.job else None for point in points]
        known = {folder for folder in folders if folder is not None}
        other = known.pop() if len(known) == 1 else expand_user(output_dir)
        self._by_folder: dict[Path, list[Point]] = {}
        for point, folder in zip(points, folders, strict=True):
            self._by_folder.setdefault(folder or other, []).append(point)
        self._lock = threading.Lock()
        self._configs: dict[Path, dict[str, Any]] = {}  # of runs of earlier sweeps
        typed = [override.partition("=")[0] for point in points for override in point.overrides]
        self.keys = list(dict.fromkeys(key.lstrip("+~") for key in typed))

    @property
    def place(self) -> str:
        """The paths of the tables, for the user."""
        return ", ".join(str(folder / MANIFEST) for folder in self._by_folder)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What is known of all points now."""
        return [self.row(point) for point in self._points]

    def row(self, point: Point) -> dict[str, Any]:
        """Return what is known of a point now."""
        if point.job is None:
            given = dict(override.lstrip("+~").partition("=")[::2] for override in point.overrides)
            values = {key: given.get(key, "") for key in self.keys}
            return {"name": "", **values, "state": "invalid", "error": point.reason}
        named = {"name": point.job.name, **self._values(point.job.config)}
        if point.run is not None:
            return named | _results(point.run) | {"same_as": point.run.name}
        return named | _results(point.job.folder)

    def write(self) -> None:
        """Bring the table up to date.

        Raises:
            ConfigError: if it cannot be written.
        """
        with self._lock:
            for folder, points in self._by_folder.items():
                with _locked(folder):
                    self._write(folder, [self.row(point) for point in points])

    def left(self) -> float | None:
        """Estimate the seconds of the remaining runs, one by one; None before any run is done."""
        rows = self.rows
        took = [row["seconds"] for row in rows if row["state"] in FINISHED and row["seconds"]]
        own = [row for row in rows if not row.get("same_as")]
        todo = [row for row in own if row["state"] not in (*FINISHED, "invalid")]
        return mean(took) * len(todo) if took and todo else None

    @contextmanager
    def kept(self, is_told: bool) -> Iterator[None]:
        """Keep the table up to date within.

        Args:
            is_told: whether to say how many runs are over.
        """
        self.write()
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over, is_told), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            with suppress(ConfigError):
                self.write()

    def _values(self, config: dict[str, Any]) -> dict[str, Any]:
        flat = {**flatten(config), **config.get("choices", {})}
        return {key: flat.get(key, "") for key in self.keys}

    def _write(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        kept = self._other_rows(folder, {row["name"] for row in rows})
        found = [key for row in kept for key in row if key not in ("name", *_RESULTS)]
        columns = ["name", *dict.fromkeys([*self.keys, *found]), *_RESULTS]
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows([*kept, *rows])
        write_atomically(folder / MANIFEST, text.getvalue().encode(), shared=True)

    def _other_rows(self, folder: Path, names: set[str]) -> list[dict[str, Any]]:
        """Return the rows of other sweeps, whose runs may have ended or been killed since."""
        kept = []
        for row in _read(folder / MANIFEST):
            run = folder / row.get("name", "")
            if run == folder or row["name"] in names or not run.is_dir():
                continue
            is_over = row.get("state") in _FINAL_STATES
            kept.append(self._values_of_run(run) | row | ({} if is_over else _results(run)))
        return kept

    def _values_of_run(self, run: Path) -> dict[str, Any]:
        """Return an earlier run's values of the keys that this sweep varies, typed there or not."""
        if run not in self._configs:
            self._configs[run] = {}
            with suppress(OSError, yaml.YAMLError):
                self._configs[run] = yaml.safe_load((run / "config.yaml").read_text()) or {}
        return self._values(self._configs[run])

    def _watch(self, over: threading.Event, is_told: bool) -> None:
        before, pause = [row["state"] for row in self.rows], _LOOK_S
        start, first = time.monotonic(), sum(state in _FINAL_STATES for state in before)
        while not over.wait(pause):
            tick = time.monotonic()
            states = [row["state"] for row in self.rows]
            if states != before:
                with suppress(ConfigError):  # a full disk; tried again
                    self.write()
                done = sum(state in _FINAL_STATES for state in states)
                was_done = sum(state in _FINAL_STATES for state in before)
                if is_told and len(states) > done > first and done != was_done:
                    left = (tick - start) / (done - first) * (len(states) - done)
                    say(f"sweep: {done} of {len(states)} runs over, {duration(left)} left")
                before = states
            pause = max(
                _LOOK_S, 20 * (time.monotonic() - tick)
            )  # at most 5% of the time, with many runs on a slow disk


def _results(folder: Path) -> dict[str, Any]:
    outcome = read_outcome(folder)
    return {key: outcome.get(key) for key in _RESULTS}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing the folder's table.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a soft lock would outlive a driver that is killed
        with FileLock(folder / ".sweep.lock", fallback_to_soft=False):
            yield
    except OSError as error:
        raise ConfigError(f"output_dir={folder} cannot be written: {error}") from error


def _read(path: Path) -> list[dict[str, str]]:
    with suppress(OSError, csv.Error, UnicodeDecodeError):
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        return [{key: value for key, value in row.items() if key and value} for row in rows]
    return []


def duration(seconds: float) -> str:
    """Spell a duration roughly, for the user."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
