"""A sweep: all points are checked before the first one runs, and a table says how far they are."""

import csv
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from byzshield_exp.errors import ConfigError, InUse, Queued, RunError, first_line
from byzshield_exp.files import write_atomically
from byzshield_exp.folders import RunFolder
from byzshield_exp.job import Job, Where, describe
from byzshield_exp.notices import say, warn
from byzshield_exp.recorder import flatten, read_summary
from byzshield_exp.status import read_status, write_status

MANIFEST = "sweep.csv"
_RESULTS = ("state", "final_accuracy", "eps_hat", "seconds", "attempts", "error")
_LOOK_S = 2.0
_SAY_EVERY_S = 10.0
_OVER = ("done", "failed", "stopped", "invalid")

Compose = Callable[[Sequence[str]], tuple[dict[str, Any], str]]
Launch = Callable[[Sequence[Path]], Sequence[Exception | None]]


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        overrides: as typed, ``key=value``.
        title: for a person.
        job: None where it cannot run.
        plan: what would happen: new, resume, retry, done, running, invalid.
        reason: why, in a few words.
    """

    overrides: tuple[str, ...]
    title: str
    job: Job | None
    plan: str
    reason: str


def sweep(
    points: Sequence[Sequence[str]],
    compose: Compose,
    launch: Launch,
    output_dir: str,
    on_invalid: str,
    only_plan: bool,
    where: Where,
) -> None:
    """Check all points, then do what is still to be done.

    Args:
        points: overrides of each.
        compose: makes a configuration and the name of its folder from a point's overrides.
        launch: does jobs, given by their paths, and returns the error of each.
        output_dir: where the table is written.
        on_invalid: ``error``: an impossible point stops the sweep before it starts; ``skip``.
        only_plan: only say what would run.
        where: they run.

    Raises:
        ConfigError: if points are impossible, before anything runs.
        RunError: at the end, if runs have failed.
    """
    checked = _check_all(points, compose, where)
    invalid = [point for point in checked if point.job is None]
    for point in invalid:
        warn(f"{point.title}: {point.reason}")
    if invalid and on_invalid == "error":
        raise ConfigError(
            f"{len(invalid)} of {len(checked)} points cannot run (on_invalid=skip leaves them out)"
        )
    plans = ("new", "resume", "retry", "running") if where.attaches else ("new", "resume", "retry")
    due = [point for point in checked if point.plan in plans]
    manifest = _Manifest(Path(output_dir), checked)
    if only_plan:
        _show_plan(checked, manifest)
        return
    say(f"sweep: {_count(checked)}; {manifest.path}")
    paths = [point.job.save() for point in due if point.job]
    with manifest.kept():
        errors = launch(paths) if paths or where.ends_what_is_left else []
    queued = [isinstance(error, Queued | InUse) for error in errors]
    for point, error, waits in zip(due, errors, queued, strict=True):
        if error is not None and point.job is not None and not waits:
            _record(point.job, error)
    manifest.write()
    rows = [manifest.row(point) for point, waits in zip(due, queued, strict=True) if not waits]
    failed = [row for row in rows if row["state"] != "done"]
    for row in failed:
        warn(f"{row['state']}: {row['name']}: {row['error']}")
    if any(queued):
        say(f"sweep: {sum(queued)} runs wait or go on elsewhere; the same command looks again")
    if failed:
        raise RunError(
            f"{len(failed)} of {len(due)} runs failed ({manifest.path}); the same command does "
            "these again"
        )


def _check_all(points: Sequence[Sequence[str]], compose: Compose, where: Where) -> list[Point]:
    checked: dict[Any, Point] = {}
    said = time.monotonic()
    shared = set.intersection(*map(set, points)) if len(points) > 1 else set()
    for number, overrides in enumerate(points):
        own = " ".join(override for override in overrides if override not in shared)
        point = _check(tuple(overrides), own or "default", compose, where)
        key = point.job.folder if point.job else point.overrides
        first = checked.setdefault(key, point)
        if first.job and point.job and first.job.config != point.job.config:
            theirs, ours = flatten(first.job.config), flatten(point.job.config)
            keys = [key for key in ours if ours[key] != theirs.get(key)]
            reason = (
                f"{', '.join(f'{key}={ours[key]}' for key in keys)}: another point has the same "
                f"folder, as {' and '.join(keys)} name none: give each an output_dir"
            )
            checked[point.overrides] = Point(point.overrides, own, None, "invalid", reason)
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            say(f"checked {number + 1} of {len(points)} points")
    return list(checked.values())


def _check(overrides: tuple[str, ...], own: str, compose: Compose, where: Where) -> Point:
    try:
        config, name = compose(overrides)
        job = describe(config, name, where).job
        folder = RunFolder(job.folder)
        folder.look(config, job.data)
    except ConfigError as error:
        return Point(overrides, own, None, "invalid", str(error))
    status = read_status(job.folder)
    plan, reason = "new" if folder.state == "new" else "resume", folder.state
    if folder.in_use:
        plan, reason = "running", "another process holds its folder"
    elif folder.finished:
        plan, reason = "done", "finished"
    elif status.get("state") == "failed":
        plan, reason = "retry", f"failed: {status.get('error')}; {folder.state}"
    return Point(overrides, name, job, plan, reason)


def _show_plan(points: Sequence[Point], manifest: "_Manifest") -> None:
    for point in points:
        if point.job is None:
            continue  # was said
        say(f"{point.plan}: {point.title}{'' if point.plan == 'new' else f' ({point.reason})'}")
        for line in point.job.lines:
            say(f"  {line}")
        for note in point.job.notes:
            warn(note)
    left = manifest.left()
    estimate = f"; {_duration(left)} one after the other" if left is not None else ""
    say(f"plan: {_count(points)}{estimate}")


def _count(points: Sequence[Point]) -> str:
    kinds = [point.plan for point in points]
    parts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    return f"{len(points)} runs: {', '.join(parts)}"


def _record(job: Job, error: Exception) -> None:
    """A failure that the run itself could not write down."""
    if read_status(job.folder).get("state") in ("done", "failed", "stopped"):
        return
    with suppress(OSError):
        write_status(job.folder, state="failed", error=first_line(error))


class _Manifest:
    """``sweep.csv``: one row a run, also of earlier sweeps into the same folder."""

    def __init__(self, folder: Path, points: Sequence[Point]) -> None:
        self.path = folder / MANIFEST
        self._points = points
        self._lock = threading.Lock()
        typed = [override.partition("=")[0] for point in points for override in point.overrides]
        self._keys = list(dict.fromkeys(key.lstrip("+~") for key in typed))

    def row(self, point: Point) -> dict[str, Any]:
        """What is known of a point now."""
        if point.job is None:
            given = dict(override.partition("=")[::2] for override in point.overrides)
            values = {key: given.get(key, "") for key in self._keys}
            return {"name": "", **values, "state": "invalid", "error": point.reason}
        config, folder = point.job.config, point.job.folder
        flat = {**flatten(config), **config["choices"]}
        status, summary = read_status(folder), read_summary(folder)
        state = status.get("state", "new")
        if state == "running" and not RunFolder(folder).in_use:
            state = "stopped"  # it was killed
        if state != "done" and point.plan == "done":
            state = "done"  # by a version without status.json
        row = {"name": point.job.name, **{key: flat.get(key, "") for key in self._keys}}
        row |= {"state": state, "attempts": status.get("attempts", 0)}
        row |= {"seconds": status.get("seconds", ""), "error": status.get("error") or ""}
        if state == "done" and summary:
            accuracy = next(key for key in summary if key.startswith("final_"))
            row |= {"final_accuracy": summary[accuracy], "eps_hat": summary["epsilon_hat"]}
        return row

    def write(self) -> None:
        """Bring the table up to date.

        Raises:
            ConfigError: if it cannot be written.
        """
        rows = {point.title: self.row(point) for point in self._points}
        with self._lock:
            old = [row for row in self._read() if row.get("name") not in {"", *rows}]
            kept = [row for row in old if (self.path.parent / row["name"]).is_dir()]
            found = [key for row in kept for key in row if key not in ("name", *_RESULTS)]
            columns = ["name", *dict.fromkeys([*self._keys, *found]), *_RESULTS]
            text = io.StringIO()
            table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows([*kept, *rows.values()])
            try:
                write_atomically(self.path, text.getvalue().encode())
            except OSError as error:
                where = f"output_dir={self.path.parent}"
                raise ConfigError(f"{where} cannot be written: {error}") from error

    def left(self) -> float | None:
        """Seconds that the runs to do take one after the other; None before any is known."""
        rows = [self.row(point) for point in self._points]
        took = [row["seconds"] for row in rows if row["state"] == "done" and row["seconds"]]
        todo = [row for row in rows if row["state"] not in ("done", "invalid")]
        return mean(took) * len(todo) if took else None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, the table is kept up to date, and progress is told."""
        self.write()
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            with suppress(ConfigError):
                self.write()

    def _watch(self, over: threading.Event) -> None:
        before, pause = [row["state"] for row in map(self.row, self._points)], _LOOK_S
        start, first = time.monotonic(), sum(state in _OVER for state in before)
        while not over.wait(pause):
            tick = time.monotonic()
            states = [row["state"] for row in map(self.row, self._points)]
            if states != before:
                with suppress(ConfigError):  # a full disk; tried again
                    self.write()
                done = sum(state in _OVER for state in states)
                if done > first and done != sum(state in _OVER for state in before):
                    left = (tick - start) / (done - first) * (len(states) - done)
                    say(f"sweep: {done} of {len(states)} runs over, {_duration(left)} left")
                before = states
            pause = max(_LOOK_S, 20 * (time.monotonic() - tick))

    def _read(self) -> list[dict[str, str]]:
        with suppress(OSError, csv.Error, UnicodeDecodeError):
            rows = list(csv.DictReader(io.StringIO(self.path.read_text())))
            return [{key: value for key, value in row.items() if key} for row in rows]
        return []


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
