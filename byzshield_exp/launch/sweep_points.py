"""The points of a sweep: which can run, what is to be done for each, and which are the same run."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from byzshield_exp.errors import ConfigError, RunError, typed
from byzshield_exp.launch.job import Job, LauncherTraits, describe
from byzshield_exp.notices import say
from byzshield_exp.results.folder import RunFolder, is_place
from byzshield_exp.results.links import essence, same_as
from byzshield_exp.results.recorder import flatten
from byzshield_exp.results.status import read_status

_SAY_EVERY_S = 10.0
_BEST_FIRST = ("done", "running", "resume", "queued", "retry", "new")  # to be the one computed
_LINKABLE = ("new", "retry")
_SPEAKS_ONLY = ("curve", "plan", "on_invalid", "overwrite", "command", "epochs")

Compose = Callable[[Sequence[str]], tuple[dict[str, Any], str]]


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        overrides: ``key=value``, as typed.
        title: name for the user.
        job: None if it cannot run.
        plan: what would happen: new, queued, resume, retry, done, running, invalid, same.
        reason: why that would happen, in a few words.
        is_anew: whether results that are in its folder are to go.
        run: the folder of the run that this one cannot differ from and will link to, if any.
    """

    overrides: tuple[str, ...]
    title: str
    job: Job | None
    plan: str
    reason: str
    is_anew: bool = False
    run: Path | None = None


def check_points(
    points: Sequence[Sequence[str]], compose: Compose, where: LauncherTraits
) -> list[Point]:
    """Build all parts of each point, and look into its folder.

    Args:
        points: the overrides of each point.
        compose: makes a configuration and the name of its folder from a point's overrides.
        where: the launcher that runs them.

    Returns:
        Each run once; points that would share a folder with another run are invalid.
    """
    checked: dict[Any, Point] = {}
    said_at = time.monotonic()
    shared = set.intersection(*map(set, points)) if len(points) > 1 else set()
    for number, overrides in enumerate(points):
        own = " ".join(override for override in overrides if override not in shared) or "default"
        point = _check(tuple(overrides), own, compose, where)
        key = point.job.folder if point.job else point.overrides
        first = checked.setdefault(key, point)
        reason = _conflict(first, point)
        if reason:
            checked[point.overrides] = Point(point.overrides, own, None, "invalid", reason)
        if time.monotonic() - said_at > _SAY_EVERY_S:
            said_at = time.monotonic()
            say(f"checked {number + 1} of {len(points)} points")
    return [*_with_same(list(checked.values()))]


def _conflict(first: Point, point: Point) -> str:
    """Why two points of one folder are not one run; empty if they are."""
    if not first.job or not point.job:
        return ""
    theirs, ours = flatten(first.job.config), flatten(point.job.config)
    keys = [
        key
        for key in ours
        if key != "command"
        and _differ(ours[key], theirs.get(key))
        and not is_place(key, ours[key], theirs.get(key))
    ]
    if not keys and first.job.data == point.job.data:
        return ""
    return (
        f"a run is the same whatever its {', '.join(keys) or 'dataset.root'}, and another point "
        f"has its folder, {point.job.folder}: give each an output_dir"
    )


def _differ(one: Any, other: Any) -> bool:
    """Whether two values are not the same; NaN is the same as NaN, 1 as 1.0."""
    return bool(one != other and (one == one or other == other))


def _check(overrides: tuple[str, ...], own: str, compose: Compose, where: LauncherTraits) -> Point:
    try:
        job = describe(*compose(overrides), where).job
        folder = RunFolder(job.folder)
        folder.inspect(job.config, job.data, job.code)
        is_held = folder.in_use
    except ConfigError as error:
        return Point(overrides, own, None, "invalid", _one_line(str(error)))
    except (Exception, SystemExit) as error:  # raised by the user's own rule or network
        if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
            raise  # SIGTERM is meant for this process
        said = str(error) if isinstance(error, RunError) else typed(error)
        return Point(overrides, own, None, "invalid", _one_line(said))
    title = str(job.folder) if "output_dir" in own else job.name
    plan, reason = _plan(folder, is_held)
    return Point(overrides, title, job, plan, reason, bool(folder.anew) and plan == "new")


def _plan(folder: RunFolder, is_held: bool) -> tuple[str, str]:
    """Return what would happen to a run, and why."""
    if is_held:
        return "running", "another process holds its folder"
    if folder.anew:
        return "new", folder.anew
    if folder.finished:
        name = same_as(folder.path)
        return "done", f"the same run as {name}" if name else "finished"
    status = read_status(folder.path) if same_as(folder.path) is None else {}
    if status.get("state") == "queued":
        return "queued", f"it was given to a queue; {folder.state}"
    if status.get("state") == "failed":
        return "retry", f"failed: {status.get('error')}; {folder.state}"
    return "new" if folder.state == "new" else "resume", folder.state


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _with_same(points: Sequence[Point]) -> Iterator[Point]:
    """Leave one point to compute of those that cannot differ; the others will link to it."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point.job:
            groups.setdefault(_identity(point.job), []).append(point)
    for point in points:
        group = groups[_identity(point.job)] if point.job else [point]
        run = _computed_of(group)
        if point.plan in _LINKABLE and run is not None and point.job and point.job.folder != run:
            yield replace(point, plan="same", reason=f"the same run as {run.name}", run=run)
        else:
            yield point


def _identity(job: Job) -> str:
    """Return a text that is equal for runs that cannot differ."""
    config = {key: value for key, value in essence(job.config).items() if key not in _SPEAKS_ONLY}
    return json.dumps([str(job.folder.parent), config, job.data, job.code], sort_keys=True)


def _computed_of(group: Sequence[Point]) -> Path | None:
    """Return the folder of the one to compute; None for an impossible point."""
    best = min(group, key=lambda point: _BEST_FIRST.index(point.plan) if point.job else 0)
    if best.job is None:
        return None
    name = same_as(best.job.folder) if best.plan == "done" else None
    return best.job.folder.parent / name if name else best.job.folder
