"""Compute curves over steps: mean and range over the runs of a setting, and what happened when."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from byzshield_exp.report.words import Measure

MOST_POINTS = 100  # of a curve; longer ones are averaged over neighbouring steps
_MOST_GROWTH = 1e3  # of a loss that an axis shows
_PLACE = ["row", "column", "series"]


@dataclass(frozen=True)
class Reference:
    """A value to draw beside a curve, such as a paper's.

    Attributes:
        series: the curve, whose colour it has.
        step: where.
        value: in the unit of the curve.
        label: text beside it; empty for none.
        row: of the panel.
        column: of the panel.
    """

    series: str
    step: float | int
    value: float
    label: str = ""
    row: str = ""
    column: str = ""


def curve_points(runs: pd.DataFrame, steps: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Average what runs measured at each step over the runs of a place.

    A run that diverged keeps its last accuracy. A step counts where all runs of the place that got
    so far were measured, so that the mean is always of the same ones.

    Args:
        runs: one a row, with ``row``, ``column`` and ``series``: its place.
        steps: of ``results.load``.
        measure: a column of ``steps``.

    Returns:
        ``row``, ``column``, ``series``, ``step``, ``mean``, ``low``, ``high`` and ``n`` (runs).
    """
    found = steps[["folder", "step", measure.name]].dropna()
    found = found.merge(runs[["folder", *_PLACE]], on="folder")
    found = _thinned(found, measure.name)
    if measure.is_accuracy:
        diverged = runs[runs["state"] == "diverged"]["folder"]
        found = pd.concat([found, _held(found, set(diverged), measure.name)], ignore_index=True)
    found[measure.name] = found[measure.name] / measure.scale
    grouped = found.groupby([*_PLACE, "step"], sort=True)[measure.name]
    points = grouped.agg(mean="mean", low="min", high="max", n="count").reset_index()
    return _complete(points, found)


def _thinned(found: pd.DataFrame, name: str) -> pd.DataFrame:
    """Average over neighbouring steps where a curve would have too many points."""
    last, most = found["step"].max(), found.groupby("folder")["step"].count().max()
    if not len(found) or most <= MOST_POINTS:
        return found
    width = int(np.ceil(last / MOST_POINTS))
    bins = (found["step"] - 1) // width
    ends = found.groupby(["folder", bins.rename("bin")])["step"].transform("max")
    keys = ["folder", *_PLACE, "step"]
    return found.assign(step=ends).groupby(keys, as_index=False)[name].mean()


def _held(found: pd.DataFrame, diverged: set[str], name: str) -> pd.DataFrame:
    """Return the last value of each diverged run at the later steps of the runs beside it."""
    rows: list[dict[str, Any]] = []
    for _, group in found.groupby(_PLACE):
        every = np.sort(group["step"].unique())
        for folder, run in group[group["folder"].isin(diverged)].groupby("folder"):
            last = run.loc[run["step"].idxmax()]
            later = every[every > last["step"]]
            place = {key: last[key] for key in _PLACE}
            rows += [{"folder": folder, "step": step, name: last[name], **place} for step in later]
    return pd.DataFrame(rows, columns=found.columns).astype(found.dtypes)


def _complete(points: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Leave out steps at which some runs were not measured that were measured later."""
    ends = found.groupby([*_PLACE, "folder"])["step"].max().groupby(_PLACE)
    sorted_ends = {place: np.sort(steps.to_numpy()) for place, steps in ends}
    kept = pd.Series(False, index=points.index)
    for place, group in points.groupby(_PLACE):
        ended = np.searchsorted(sorted_ends[place], group["step"].to_numpy(), side="left")
        is_whole = group["n"] == len(sorted_ends[place]) - ended
        kept[group.index] = is_whole if is_whole.any() else True
    return points[kept].reset_index(drop=True)


def ceiling(points: pd.DataFrame, measure: Measure) -> float:
    """Return where the axis of a loss ends, since a run that diverges flattens all others.

    Returns:
        A thousand times the least first value of a curve, where a run goes beyond ten times that;
        else infinity.
    """
    if "loss" not in measure.name or points.empty or points["low"].min() <= 0:
        return np.inf
    firsts = points.loc[points.groupby(_PLACE)["step"].idxmin(), "mean"]
    most = float(_MOST_GROWTH * firsts.min())
    return most if points["high"].max() > 10 * most else np.inf


def bans(runs: pd.DataFrame, steps: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Place the bans of peers on the curves: ``row``, ``column``, ``series``, ``step``, ``mean``.

    ``n`` is how many peers were banned at the step, over all runs of the place.
    """
    if "banned_now" not in steps:
        return pd.DataFrame(columns=[*_PLACE, "step", "mean", "n"])
    now = steps["banned_now"].map(lambda peers: len(peers) if isinstance(peers, tuple) else 0)
    found = steps.assign(n=now)[now > 0].merge(runs[["folder", *_PLACE]], on="folder")
    found = found.groupby([*_PLACE, "step"])["n"].sum().reset_index()
    curves = {place: group for place, group in points.groupby(_PLACE)}
    found = found[[place in curves for place in found[_PLACE].itertuples(index=False, name=None)]]
    at = [
        np.interp(row.step, curve["step"], curve["mean"])
        for row in found.itertuples()
        for curve in [curves[(row.row, row.column, row.series)]]
    ]
    return found.assign(mean=at)


def starts(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the first step of the attack by ``row`` and ``column``, where it is not the first."""
    columns = [*_PLACE[:2], "adversary.start"]
    if "adversary.start" not in runs:
        return pd.DataFrame(columns=[*_PLACE[:2], "step"])
    late = runs[(runs["adversary.start"] > 1) & (runs["q"] > 0) & (runs["attack"] != "none")]
    return late[columns].drop_duplicates().rename(columns={"adversary.start": "step"})


def marked(points: pd.DataFrame, order: Sequence[str], most: int = 6) -> list[bool]:
    """Choose the points that have a marker: about ``most`` a curve, at other steps in each."""
    place = {name: at for at, name in enumerate(order)}
    chosen = pd.Series(False, index=points.index)
    for (_, _, series), group in points.groupby(_PLACE):
        every = max(1, len(group) // most)
        first = place.get(series, 0) * max(1, every // 3) % every
        chosen[group.index[first::every]] = True
    return list(chosen)


def layered(kinds: Iterable[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Join what a chart draws into one table, told apart by ``kind``: panels need one table."""
    return pd.concat(
        [frame.assign(kind=kind) for kind, frame in kinds if len(frame)], ignore_index=True
    )


def as_frame(references: Iterable[Reference]) -> pd.DataFrame:
    """Return references as rows: ``row``, ``column``, ``series``, ``step``, ``mean``, ``label``."""
    rows = [
        {"row": one.row, "column": one.column, "series": one.series, "step": one.step,
         "mean": one.value, "label": one.label}
        for one in references
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[*_PLACE, "step", "mean", "label"])
