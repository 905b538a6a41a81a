"""Figures of what liars win: files per step, their share of all files, and the worst case."""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from byzshield_exp.report.comparisons import BAND, at_the_end, tabular
from byzshield_exp.report.curves import curve_points
from byzshield_exp.report.figures import Figure, Spread, spread
from byzshield_exp.report.lines import curve_chart
from byzshield_exp.report.study import Dimension, Study
from byzshield_exp.report.words import Measure, measure

SHARE = Measure("epsilon_realised", "share of files won by liars")
_WORST = ["row", "column", "series"]


def won(study: Study) -> Iterator[Figure]:
    """Draw the share and the number of files that liars won, over steps, with the worst case."""
    study = with_shares(study)
    if study.runs.empty:
        return
    dimensions = _that_matter(study)
    for one in spread(study, dimensions):
        yield _over_steps(one, SHARE, "epsilon_hat")
    for one in spread(study, dimensions):
        yield _over_steps(one, measure("distorted_files"), "num_corrupt")


def with_shares(study: Study) -> Study:
    """Add the realised share of files to steps; keep the runs that have one.

    Runs of peers have no files; a run whose summary does not say how many there are is left out
    unless its worst case tells.
    """
    steps, runs = study.steps, study.runs
    if "distorted_files" not in steps or "epsilon_hat" not in runs:
        return study.of(pd.Series(False, index=runs.index))
    number = runs["num_corrupt"] / runs["epsilon_hat"].where(runs["epsilon_hat"] > 0)
    if "num_files" in runs:
        number = runs["num_files"].fillna(number)
    files = dict(zip(runs["folder"], number.astype(float), strict=True))
    shares = steps["distorted_files"] / steps["folder"].map(files)
    steps = steps.assign(epsilon_realised=shares)
    known = runs["folder"].isin(steps[shares.notna()]["folder"])
    return Study(runs[known], steps, study.dimensions, study.measure)


def _that_matter(study: Study) -> list[Dimension]:
    """Leave out the dimensions on which neither the files won nor the worst case depends."""
    won_by = study.steps.groupby("folder")["distorted_files"].apply(tuple)
    seen = study.runs["folder"].map(won_by).map(repr) + study.runs["epsilon_hat"].map(repr)
    kept = list(study.dimensions)
    for one in reversed(study.dimensions):
        others = [other.column for other in kept if other is not one]
        before = [other.column for other in kept]
        if _variants(study, seen, others) == _variants(study, seen, before):
            kept.remove(one)
    return kept


def _variants(study: Study, seen: pd.Series, columns: list[str]) -> int:
    """Count the most different histories among runs that agree in some columns."""
    return int(
        seen.groupby([study.runs[name] for name in columns] or [0] * len(seen)).nunique().max()
    )


def _over_steps(one: Spread, what: Measure, worst: str) -> Figure:
    runs = one.study.runs
    points = curve_points(runs, one.study.steps, what)
    levels = runs.groupby(_WORST, as_index=False)[worst].max().rename(columns={worst: "mean"})
    draw = partial(curve_chart, points, one.panels, what, levels=levels)
    table = points.merge(levels.rename(columns={"mean": "worst"}), on=_WORST)
    numbers = {"step": "step", "mean": "mean", "low": "lowest", "high": "highest"}
    table = tabular(table, numbers | {"worst": "worst case (computed)", "n": "runs"}, what)
    said = "Thin horizontal lines: the worst case of the placement, computed." + one.remark
    title = f"{what.title[:1].upper()}{what.title[1:]} in each step{one.said}"
    return Figure(f"{what.name}{one.suffix}", title, f"{BAND} {said}", draw, table)


def worst_by_size(study: Study) -> Iterator[Figure]:
    """Draw the worst share of files by q, K and r."""
    if "epsilon_hat" not in study.runs or not any(one.is_size for one in study.dimensions):
        return
    known = with_shares(study)
    if known.runs.empty:
        return
    sizes = [one for one in study.dimensions if one.is_size]
    kept = {*_that_matter(known), *sizes}
    dimensions = tuple(one for one in study.dimensions if one in kept)
    of_worst = Study(study.runs, study.steps, dimensions, measure("epsilon_hat"))
    yield from at_the_end(of_worst)
