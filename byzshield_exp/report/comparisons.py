"""Figures of what is compared: over steps, and at the end by q, K and r or by setting."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any

import altair as alt
import pandas as pd

from byzshield_exp.report.curves import bans, ceiling, curve_points, starts
from byzshield_exp.report.figures import Figure, Spread, spread
from byzshield_exp.report.lines import curve_chart
from byzshield_exp.report.panels import SERIES, Panels, hovering, told, value_axis
from byzshield_exp.report.study import Dimension, Study
from byzshield_exp.report.theme import Medium, width_of
from byzshield_exp.report.words import Measure, measure

_PLACES = {"row": "panel row", "column": "panel", "series": "curve"}
_NUMBERS = {"mean": "mean", "low": "lowest", "high": "highest", "n": "runs"}
BAND = "Lines are means over runs, bands reach from the lowest to the highest run."


def over_steps(study: Study) -> Iterator[Figure]:
    """Draw the measure, and the training loss, over steps."""
    loss = study.steps["loss"].max() if "loss" in study.steps else 0.0
    for what in dict.fromkeys([study.measure, measure("loss", loss)]):
        if what.name not in study.steps or study.steps[what.name].isna().all():
            continue
        for one in spread(study, study.dimensions):
            if (figure := _curves(one, what)) is not None:
                yield figure


def _curves(one: Spread, what: Measure) -> Figure | None:
    points = curve_points(one.study.runs, one.study.steps, what)
    if points.empty:
        return None
    banned, begun = bans(one.study.runs, one.study.steps, points), starts(one.study.runs)
    panels = _without_empty(one.panels, points)
    draw = partial(curve_chart, points, panels, what, bans=banned, starts=begun)
    caption = BAND if (points["n"] > 1).any() else "One run a line."
    caption += " Hollow triangles: peers are banned." * bool(len(banned))
    caption += " A run that diverged keeps its last accuracy." * _has_diverged(one, what)
    caption += " A curve that leaves the top goes on above it." * (ceiling(points, what) < inf)
    title = f"{capital(what.title)} over steps{one.said}"
    table = tabular(points, {"step": "step", **_NUMBERS}, what)
    return Figure(f"{what.name}_by_step{one.suffix}", title, caption + one.remark, draw, table)


def _without_empty(panels: Panels, points: pd.DataFrame) -> Panels:
    """Leave out series, columns and rows of which no run has a value."""
    kept = {
        plural: [name for name in getattr(panels, plural) if name in set(points[column])]
        for plural, column in (("series", "series"), ("columns", "column"), ("rows", "row"))
    }
    return Panels(**kept, height=panels.height, is_wide=panels.is_wide)


def _has_diverged(one: Spread, what: Measure) -> bool:
    return what.is_accuracy and bool((one.study.runs["state"] == "diverged").any())


def tabular(points: pd.DataFrame, numbers: dict[str, str], what: Measure) -> pd.DataFrame:
    """Rename columns for readers, and leave out those of panels that say nothing."""
    said = {name: title for name, title in _PLACES.items() if (points[name] != "").any()}
    named = {name: f"{what.axis}, {title}" if name == "mean" else title
             for name, title in numbers.items()}  # fmt: skip
    return points[[*said, *numbers]].rename(columns=said | named)


def at_the_end(study: Study) -> Iterator[Figure]:
    """Draw the final value by each of q, K and r that varied, or else by setting."""
    study = finished(study)
    sizes = [one for one in study.dimensions if one.is_size]
    for size in sizes:
        for one in spread(study, [other for other in study.dimensions if other is not size]):
            if one.study.runs[size.column].nunique() > 1:
                yield _by_size(one, size)
    if not sizes and study.dimensions and len(study.runs):
        yield from _by_setting(study)


def finished(study: Study) -> Study:
    """Keep the runs that have a final value, in the measure's unit as ``value``."""
    runs = study.runs
    known = (
        runs[study.measure.name].notna() if study.measure.name in runs else runs["steps_done"] < 0
    )
    kept = study.of(known)
    value = kept.runs[study.measure.name] / study.measure.scale if known.any() else 0.0
    return Study(kept.runs.assign(value=value), study.steps, study.dimensions, study.measure)


def averaged(runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Average ``value`` over runs: ``mean``, ``low``, ``high`` and ``n``."""
    grouped = runs.groupby(list(keys), sort=True, observed=True)["value"]
    return grouped.agg(mean="mean", low="min", high="max", n="count").reset_index()


def _by_size(one: Spread, size: Dimension) -> Figure:
    runs = one.study.runs
    runs = runs.assign(size=runs[size.column].map(dict(enumerate(size.numbers))))
    points = averaged(runs, ["row", "column", "series", "size"])
    what = one.study.measure
    panels = _without_empty(one.panels, points)
    draw = partial(_size_chart, points, panels, size, what)
    table = tabular(points, {"size": size.name, **_NUMBERS}, what)
    title = capital(f"{what.final} by {size.brief}{one.said}")
    caption = "Means over runs; bars reach from the lowest to the highest run." + one.remark
    return Figure(f"final_{what.name}_by_{size.name}{one.suffix}", title, caption, draw, table)


def _size_chart(
    points: pd.DataFrame, panels: Panels, size: Dimension, what: Measure, medium: Medium
) -> Any:
    sizes = sorted(points["size"].unique().tolist())
    gap = min(after - before for before, after in pairwise(sizes))
    step = 0.03 * gap  # beside each other, so that bars do not hide each other
    middle = (len(panels.series) - 1) / 2
    places = {name: (at - middle) * step for at, name in enumerate(panels.series)}
    data = points.assign(x=points["size"] + points["series"].map(places))
    ticks = alt.Axis(values=sizes, grid=False, format="d")
    scale = alt.Scale(zero=False, nice=False, padding=medium(8))
    x = alt.X("x:Q", title=size.title, axis=ticks, scale=scale)
    y = value_axis("mean", points, what)
    base = alt.Chart().encode(x=x, y=y, detail=alt.Detail("series:N"))
    colour = panels.colour
    layers = [
        base.mark_line(stroke=colour, strokeDash=panels.dash(medium)),
        base.mark_rule(stroke=colour).encode(y=value_axis("low", points, what), y2=alt.Y2("high")),
        base.mark_point(
            fill=colour, shape=panels.shape, opacity=1, strokeWidth=0, size=medium.area(24)
        ),
    ]
    if medium.interactive:
        where = alt.Tooltip("size:Q", title=size.title)
        layers.append(hovering(base, [SERIES, where, *told(what)], medium))
    return panels.arranged(panels.with_legend(layers, medium), data, medium)


def _by_setting(study: Study) -> Iterator[Figure]:
    """Draw a dot for each setting, with its range."""
    runs = study.runs.assign(row="", column="", series=study.labels(study.dimensions))
    points = averaged(runs, ["row", "column", "series"])
    order = study.order(study.dimensions)
    what = study.measure
    draw = partial(_dots, points, order, what)
    table = tabular(points, _NUMBERS, what).rename(columns={"curve": "setting"})
    caption = "Dots are means over runs; bars reach from the lowest to the highest run."
    yield Figure(f"final_{what.name}", capital(what.final), caption, draw, table)


def _dots(points: pd.DataFrame, order: Sequence[str], what: Measure, medium: Medium) -> Any:
    is_wide = width_of(order) > 110
    panels = Panels(height=14.0 * len(order) + 10, is_wide=is_wide)
    axis = alt.Axis(title=None, labelLimit=0, grid=True)
    base = alt.Chart().encode(
        y=alt.Y("series:N", sort=list(order), axis=axis),
        x=value_axis("mean", points, what, alt.X),
        tooltip=[SERIES, *told(what)],
    )
    colour = panels.styles.colours[0]
    rule = base.mark_rule(color=colour).encode(
        x=value_axis("low", points, what, alt.X), x2=alt.X2("high")
    )
    dot = base.mark_point(fill=colour, opacity=1, strokeWidth=0, size=medium.area(30))
    return panels.arranged([rule, dot], points, medium)


def capital(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]
