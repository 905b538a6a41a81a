"""Run a sweep: check all points, then run those that are not done, and keep a table of them."""

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from byzshield_exp.errors import ConfigError, InUse, Queued, RunError, first_line
from byzshield_exp.launch.job import Job, LauncherTraits, describe
from byzshield_exp.launch.manifest import Manifest, Point, duration
from byzshield_exp.launch.overview import overview
from byzshield_exp.notices import say, warn
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.outcome import FINISHED
from byzshield_exp.results.recorder import flatten
from byzshield_exp.results.status import read_status, write_status

_SAY_EVERY_S = 10.0
_DUE = ("new", "queued", "resume", "retry")

Compose = Callable[[Sequence[str]], tuple[dict[str, Any], str]]
Launch = Callable[[Sequence[Path]], Sequence[Exception | None]]


def sweep(
    points: Sequence[Sequence[str]],
    compose: Compose,
    launch: Launch,
    output_dir: str,
    on_invalid: str,
    only_plan: bool,
    where: LauncherTraits,
) -> None:
    """Check all points of a sweep, then run those that are not done.

    Args:
        points: the overrides of each point.
        compose: makes a configuration and the name of its folder from a point's overrides.
        launch: runs jobs, given by their files, and returns the error of each.
        output_dir: folder of the table, for points that have none.
        on_invalid: ``error``: an impossible point stops the sweep before it starts; ``skip``: it is
            left out.
        only_plan: only say what would run.
        where: the launcher that runs them.

    Raises:
        ConfigError: if points are impossible, before anything runs.
        RunError: at the end, if runs have failed.
    """
    if on_invalid not in ("error", "skip"):
        raise ConfigError(f"on_invalid={on_invalid} must be one of error, skip")
    checked = _check_all(points, compose, where)
    invalid = [point for point in checked if point.job is None]
    for point in invalid:
        warn(f"{point.title}: {point.reason}")
    if invalid and on_invalid == "error":
        raise ConfigError(
            f"{len(invalid)} of {len(checked)} points cannot run (on_invalid=skip leaves them out)"
        )
    if len(invalid) == len(checked):
        raise ConfigError("the sweep has no point that can run")
    due = [point for point in checked if point.plan in _DUE]
    left_alone = [point for point in checked if point.plan == "running"]
    if where.reattaches:
        due, left_alone = due + left_alone, []
    manifest = Manifest(checked, output_dir)
    if only_plan:
        _show_plan(checked, manifest)
        return
    say(f"sweep: {_counts_line(checked)}; {manifest.place}")
    paths = [point.job.save() for point in due if point.job]
    with manifest.kept(is_told=not where.draws_bars):
        errors = launch(paths) if paths or where.cleans_up else []
    ended = []
    for point, error in zip(due, errors, strict=True):
        if isinstance(error, Queued | InUse):
            left_alone.append(point)
            continue
        if error is not None and point.job is not None:
            _record_failure(point.job, error)
        ended.append(manifest.row(point))
    manifest.write()
    for line in overview(manifest.rows, manifest.keys):
        say(line)
    if left_alone:
        say(f"sweep: {len(left_alone)} runs wait or go on elsewhere; the same command looks again")
    _report_failures([row for row in ended if row["state"] not in FINISHED], len(due), manifest)


def _report_failures(rows: Sequence[dict[str, Any]], due: int, manifest: Manifest) -> None:
    """Warn of every run that is not done.

    Raises:
        RunError: if there are any.
    """
    for row in rows:
        warn(f"{row['state']}: {row['name']}: {row['error']}")
    stopped = sum(row["state"] == "stopped" for row in rows)
    counts = {"failed": len(rows) - stopped, "were stopped": stopped}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if rows:
        raise RunError(
            f"of {due} runs {said} ({manifest.place}); the same command does these again"
        )


def _check_all(
    points: Sequence[Sequence[str]], compose: Compose, where: LauncherTraits
) -> list[Point]:
    checked: dict[Any, Point] = {}
    said_at = time.monotonic()
    shared = set.intersection(*map(set, points)) if len(points) > 1 else set()
    for number, overrides in enumerate(points):
        own = " ".join(override for override in overrides if override not in shared) or "default"
        point = _check(tuple(overrides), own, compose, where)
        key = point.job.folder if point.job else point.overrides
        first = checked.setdefault(key, point)
        theirs, ours = (flatten(one.job.config) if one.job else {} for one in (first, point))
        keys = [key for key in ours if key != "command" and ours[key] != theirs.get(key)]
        if point.job and keys:
            reason = (
                f"a run is the same whatever its {', '.join(keys)}, and another point has its "
                f"folder, {point.job.folder}: give each an output_dir"
            )
            checked[point.overrides] = Point(point.overrides, own, None, "invalid", reason)
        if time.monotonic() - said_at > _SAY_EVERY_S:
            said_at = time.monotonic()
            say(f"checked {number + 1} of {len(points)} points")
    return list(checked.values())


def _check(overrides: tuple[str, ...], own: str, compose: Compose, where: LauncherTraits) -> Point:
    try:
        config, name = compose(overrides)
        job = describe(config, name, where).job
        folder = RunFolder(job.folder)
        folder.inspect(config, job.data)
        is_held = folder.in_use
    except ConfigError as error:
        return Point(overrides, own, None, "invalid", _one_line(str(error)))
    except (Exception, SystemExit) as error:  # raised by the user's own rule or network
        if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
            raise  # SIGTERM is meant for this process
        reason = _one_line(f"{type(error).__name__}: {error}")
        return Point(overrides, own, None, "invalid", reason)
    status = read_status(job.folder)
    plan, reason = "new" if folder.state == "new" else "resume", folder.state
    if is_held:
        plan, reason = "running", "another process holds its folder"
    elif folder.finished:
        plan, reason = "done", "finished"
    elif status.get("state") == "queued":
        plan, reason = "queued", f"it was given to a queue; {folder.state}"
    elif status.get("state") == "failed":
        plan, reason = "retry", f"failed: {status.get('error')}; {folder.state}"
    return Point(overrides, str(job.folder) if "output_dir" in own else name, job, plan, reason)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _show_plan(points: Sequence[Point], manifest: Manifest) -> None:
    for point in points:
        if point.job is None:
            continue  # its warning is out already
        say(f"{point.plan}: {point.title}{'' if point.plan == 'new' else f' ({point.reason})'}")
        for line in (*point.job.lines, *(f"warning: {note}" for note in point.job.notes)):
            say(f"  {line}")
    left = manifest.left()
    estimate = f"; {duration(left)} one after the other" if left is not None else ""
    say(f"plan: {_counts_line(points)}{estimate}")


def _counts_line(points: Sequence[Point]) -> str:
    kinds = [point.plan for point in points]
    parts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    return f"{len(points)} runs: {', '.join(parts)}"


def _record_failure(job: Job, error: Exception) -> None:
    """Record a failure that the run could not write down itself."""
    if read_status(job.folder).get("state") in ("done", "failed", "stopped"):
        return
    with suppress(OSError):
        write_status(job.folder, state="failed", error=first_line(error))
