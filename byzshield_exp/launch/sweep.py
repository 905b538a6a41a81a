"""Run a sweep: check all points, then run those that are not done, and keep a table of them."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from byzshield_exp import interrupts
from byzshield_exp.errors import ConfigError, InUse, Queued, RunError, Stopped, first_line
from byzshield_exp.launch.job import Job, LauncherTraits, missing_data
from byzshield_exp.launch.manifest import Manifest, duration
from byzshield_exp.launch.overview import overview
from byzshield_exp.launch.sweep_points import Compose, Point, check_points
from byzshield_exp.notices import say, warn
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.outcome import FINISHED, read_outcome
from byzshield_exp.results.status import read_status, write_status

_DUE = ("new", "queued", "resume", "retry")

Launch = Callable[[Sequence[Path]], Sequence[Exception | None]]


def sweep(
    points: Sequence[Sequence[str]],
    compose: Compose,
    launch: Launch,
    output_dir: str,
    on_invalid: str,
    only_plan: bool,
    where: LauncherTraits,
    found: Callable[[Job, Sequence[str]], None],
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
        found: is called with the job and the overrides of each point that can run.

    Raises:
        ConfigError: if points are impossible, before anything runs.
        RunError: at the end, if runs have failed.
    """
    if on_invalid not in ("error", "skip"):
        raise ConfigError(f"on_invalid={on_invalid} must be one of error, skip")
    checked = check_points(
        points, compose, replace(where, fetches_data=True) if only_plan else where
    )
    for point in checked:
        if point.job:
            found(point.job, point.overrides)
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
        if not where.fetches_data:
            jobs = [point.job for point in checked if point.job]
            for missing in filter(None, dict.fromkeys(missing_data(job.config) for job in jobs)):
                warn(missing)
        _show_plan(checked, manifest)
        return
    say(f"sweep: {_counts_line(checked)}; {manifest.place}")
    started = [point for point in due if save_job(point)]
    left_alone += [point for point in due if point not in started]
    _link(checked, not_to={point.job.folder for point in started if point.job})
    errors = _launched(started, checked, launch, manifest, where)
    ended = []
    for point, error in zip(started, errors, strict=True):
        if isinstance(error, Queued | InUse):
            left_alone.append(point)
            continue
        if error is not None and point.job is not None:
            _record_failure(point.job, error)
        ended.append(manifest.row(point))
    _show_table(manifest)
    if left_alone:
        say(f"sweep: {len(left_alone)} runs wait or go on elsewhere; the same command looks again")
    _report_failures([row for row in ended if row["state"] not in FINISHED], len(due), manifest)


def save_job(point: Point) -> bool:
    """Write a point's job, into a folder without results that do not count; else return False.

    Raises:
        ConfigError: if it cannot be written.
    """
    if point.job is None:
        return False
    if point.is_anew:  # here, as a job may be started twice
        try:
            with RunFolder(point.job.folder).open(point.job.config, point.job.data, point.job.code):
                pass
        except InUse:
            return False
    point.job.save()
    return True


def _launched(
    started: Sequence[Point],
    points: Sequence[Point],
    launch: Launch,
    manifest: Manifest,
    where: LauncherTraits,
) -> Sequence[Exception | None]:
    """Launch jobs; link what cannot differ from them, and show the table if that is cut short."""
    paths = [point.job.file for point in started if point.job]
    try:
        try:
            with manifest.kept(is_told=not where.draws_bars):
                return launch(paths) if paths or where.cleans_up else []
        finally:
            _link(points)
    except (Stopped, KeyboardInterrupt):
        with interrupts.ignored():
            _show_table(manifest)
        raise


def _link(points: Sequence[Point], not_to: Collection[Path] = ()) -> None:
    """Link the folders of points that cannot differ from a run that is done."""
    for point in points:
        if point.run is None or point.job is None or point.run in not_to:
            continue
        if read_outcome(point.run)["state"] not in FINISHED:
            continue
        job = point.job
        try:
            RunFolder(job.folder).link_to(point.run, job.config, job.data, job.code)
        except (ConfigError, OSError) as error:
            warn(f"{job.name} could not be linked to {point.run.name}: {error}")


def _show_table(manifest: Manifest) -> None:
    manifest.write()
    for line in overview(manifest.rows, manifest.keys):
        say(line)


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


def _show_plan(points: Sequence[Point], manifest: Manifest) -> None:
    for point in points:
        if point.job is None:
            continue  # its warning is out already
        say(f"{point.plan}: {point.title}{'' if point.reason == 'new' else f' ({point.reason})'}")
        if point.run is not None:
            continue  # the other's lines say all
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
