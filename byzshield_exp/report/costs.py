"""Figures of what a run costs: time per phase, traffic, memory, and what accuracy it buys."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import altair as alt
import pandas as pd

from byzshield_exp.report.comparisons import averaged, capital, finished, tabular
from byzshield_exp.report.figures import Figure, spread
from byzshield_exp.report.panels import SERIES, Panels, hovering, told, value_axis
from byzshield_exp.report.study import Dimension, Study, listed
from byzshield_exp.report.theme import OTHERS, STACKED, Medium, legend_columns, width_of
from byzshield_exp.report.words import Measure, measure

_MOST_BARS = 16
_MOST_PARTS = 5  # of a bar, with a colour each; smaller ones are the others
_OTHER = "other"
_ORDER = ("data", "compute", "attack", "send", "gather", "vote", "deliver", "aggregate", "update")
_TRAFFIC = {"bytes_in": "to rank 0", "data_bytes": "gradients between peers",
            "control_bytes": "posts of peers"}  # fmt: skip


def costs(study: Study) -> Iterator[Figure]:
    """Draw time per phase, traffic and memory by setting."""
    shown = study.restricted(_few(study))
    merged = [one.title for one in study.dimensions if one not in shown.dimensions]
    over = f" Means over {', '.join(merged)} too." if merged else ""
    yield from _bars(shown, _phases(study.steps), "time_by_phase", "Time of a step by phase",
                     "seconds.total", "Median over steps, mean over runs." + over)  # fmt: skip
    traffic = {said: study.steps[name] for name, said in _TRAFFIC.items() if name in study.steps}
    traffic = {said: values for said, values in traffic.items() if values.max() > 0}
    if len(traffic) > 1 and "to rank 0" in traffic:
        traffic = {"to rank 0": traffic["to rank 0"]}  # which counts the others again
    yield from _bars(shown, traffic, "traffic", "Traffic of a step", "bytes_in",
                     "Median over steps, mean over runs." + over)  # fmt: skip
    if "server_memory_bytes" in study.runs:
        by_run = study.runs.set_index("folder")["server_memory_bytes"]
        peak = {"server": study.steps["folder"].map(by_run)}
        title, caption = "Peak memory of the server", "Without the program itself; mean over runs."
        yield from _bars(shown, peak, "server_memory", title, "server_memory_bytes", caption + over)


def _few(study: Study) -> list[Dimension]:
    """Leave out dimensions, liars' first, until there are few enough settings for bars."""
    kept = list(study.dimensions)
    for one in sorted(study.dimensions, key=lambda one: not one.is_adversary):
        if len(study.order(kept)) > _MOST_BARS:
            kept.remove(one)
    return kept


def _phases(steps: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the seconds of each phase; those without a name are others."""
    names = [name for name in steps if name.startswith("seconds.") and name != "seconds.total"]
    known = {name.partition(".")[2]: steps[name].fillna(0.0) for name in names}
    order = [name for name in _ORDER if name in known]
    phases = {
        name: known[name] for name in [*order, *(name for name in known if name not in order)]
    }
    if phases and "seconds.total" in steps:
        rest = (steps["seconds.total"] - sum(phases.values())).clip(lower=0.0)
        phases[_OTHER] = rest.fillna(0.0)
    return phases


def _bars(
    study: Study, parts: Mapping[str, pd.Series], name: str, title: str, column: str, caption: str
) -> Iterator[Figure]:
    """Draw a bar for each setting, made of parts."""
    runs = study.runs.assign(setting=study.labels(study.dimensions))
    data = _by_setting(runs, study.steps["folder"], parts)
    if data.empty or data["value"].max() <= 0:
        return
    what = measure(column, float(data.groupby("setting")["value"].sum().max()))
    data = _without_small(data).assign(value=lambda rows: rows["value"] / what.scale)
    order = [label for label in study.order(study.dimensions) if label in set(data["setting"])]
    shown = Measure(what.name, title.partition(" by ")[0].lower(), what.unit, what.scale)
    draw = partial(_bar_chart, data, order, shown)
    wide = data.pivot(index="setting", columns="part", values="value").reindex(order).reset_index()
    wide = wide[["setting", *dict.fromkeys(data["part"])]].rename(
        columns={part: f"{part} ({what.unit})" for part in parts}
        | {_OTHER: f"{_OTHER} ({what.unit})"}
    )
    wide.columns.name = None
    wide = wide if (wide["setting"] != "").any() else wide.drop(columns="setting")
    count = runs[runs["folder"].isin(set(study.steps["folder"]))].groupby("setting").size()
    runs_of = wide["setting"].map(count) if "setting" in wide else len(runs)
    yield Figure(name, title, caption, draw, wide.assign(runs=runs_of))


def _by_setting(
    runs: pd.DataFrame, folders: pd.Series, parts: Mapping[str, pd.Series]
) -> pd.DataFrame:
    """Take the median of each part over a run's steps, and the mean over a setting's runs."""
    if not parts:
        return pd.DataFrame(columns=["setting", "part", "value"])
    medians = pd.DataFrame(parts).groupby(folders).median()
    medians = medians.join(runs.set_index("folder")["setting"], how="inner")
    means = medians.groupby("setting").mean().reset_index()
    return means.melt("setting", var_name="part", value_name="value").dropna()


def _without_small(data: pd.DataFrame) -> pd.DataFrame:
    """Join the parts beyond the largest ones."""
    share = data["value"] / data.groupby("setting")["value"].transform("sum")
    largest = share.groupby(data["part"]).max().drop(_OTHER, errors="ignore")
    kept = largest.sort_values(ascending=False).index[:_MOST_PARTS]
    joined = data.assign(part=data["part"].where(data["part"].isin(kept), _OTHER))
    return joined.groupby(["setting", "part"], sort=False, as_index=False)["value"].sum()


def _bar_chart(data: pd.DataFrame, order: Sequence[str], what: Measure, medium: Medium) -> Any:
    parts = sorted(dict.fromkeys(data["part"]), key=lambda part: part == _OTHER)
    panels = Panels(parts, height=15.0 * len(order) + 8, is_wide=width_of(order) > 90)
    place = {part: at for at, part in enumerate(parts)}
    axis = alt.Axis(title=None, labelLimit=0, grid=False, labels=len(order) > 1, ticks=False)
    colours = [OTHERS if part == _OTHER else STACKED[at] for part, at in place.items()]
    columns = legend_columns(parts, panels.width - 20 - width_of(order))
    legend = alt.Legend(
        title=None, orient="bottom", columns=columns, symbolType="square",
        symbolSize=medium.area(50),
    )  # fmt: skip
    bar = alt.Chart().mark_bar(stroke="white", strokeWidth=medium(0.6))
    part = alt.Color(
        "part:N", scale=alt.Scale(domain=parts, range=colours),
        legend=legend if len(parts) > 1 else None,
    )  # fmt: skip
    value = alt.Tooltip("value:Q", title=what.axis, format=".4~f")
    told = [alt.Tooltip("setting:N"), alt.Tooltip("part:N"), value]
    bar = bar.encode(
        y=alt.Y("setting:N", sort=list(order), axis=axis),
        x=alt.X("value:Q", title=what.axis, stack="zero"),
        color=part, order=alt.Order("place:Q"), tooltip=told,
    )  # fmt: skip
    return panels.arranged([bar], data.assign(place=data["part"].map(place)), medium)


def plane(study: Study) -> Iterator[Figure]:
    """Draw the final value under the worst attack against the time of a step, by defence."""
    study = finished(study)
    if not study.measure.is_accuracy or len(study.order(study.dimensions)) < 2:
        return
    liars = [one for one in study.dimensions if one.is_adversary]
    chosen = [one for one in study.dimensions if not one.is_adversary]
    if not chosen:
        return
    cost = measure("seconds_per_step", float(study.runs["seconds_per_step"].max()))
    for one in spread(study.restricted(chosen), chosen, height=150.0):
        points = _points(one.study, liars, chosen, cost)
        what = one.study.measure
        title = what.title + f" under the worst {listed(liars)}" * bool(liars)
        shown = Measure(what.name, title)
        draw = partial(_plane_chart, points, one.panels, title, cost, what)
        numbers = {
            "cost": cost.axis,
            "mean": "mean",
            "low": "lowest",
            "high": "highest",
            "n": "runs",
        }
        table = tabular(points, numbers, shown)
        heading = f"{capital(what.title)} against time{one.said}"
        caption = "A point for each defence; up and left is better."
        yield Figure(f"cost_{what.name}{one.suffix}", heading, caption + one.remark, draw, table)


def _points(
    study: Study, liars: Sequence[Dimension], chosen: Sequence[Dimension], cost: Measure
) -> pd.DataFrame:
    """Return the worst mean of each defence, and its mean time."""
    place = ["row", "column", "series", *(one.column for one in chosen)]
    means = averaged(study.runs, [*place, *(one.column for one in liars)])
    worst = means.loc[means.groupby(place)["mean"].idxmin()]
    time = study.runs.groupby(place)["seconds_per_step"].mean().rename("cost") / cost.scale
    return worst.merge(time.reset_index(), on=place)


def _plane_chart(
    points: pd.DataFrame,
    panels: Panels,
    title: str,
    cost: Measure,
    what: Measure,
    medium: Medium,
) -> Any:
    first, under, rest = title.partition(" under ")
    fits = width_of([title]) < panels.tall or not under
    said = title if fits else [f"{first} under", rest]
    axis = partial(value_axis, points=points, measure=what, padding=medium(6), title=said)
    costs_most = 1.06 * float(points["cost"].max())  # no marker is on the frame
    base = alt.Chart().encode(
        x=alt.X("cost:Q", title=cost.axis, scale=alt.Scale(domain=[0, costs_most], nice=True)),
        y=axis("mean"),
        detail=alt.Detail("series:N"),
    )
    layers = [
        base.mark_rule(stroke=panels.colour).encode(y=axis("low"), y2=alt.Y2("high")),
        base.mark_point(fill=panels.colour, shape=panels.shape, opacity=1, strokeWidth=0,
                        size=medium.area(35)),
    ]  # fmt: skip
    if medium.interactive:
        where = alt.Tooltip("cost:Q", title=cost.axis, format=".4~f")
        layers.append(hovering(base, [SERIES, where, *told(what)], medium))
    return panels.arranged(panels.with_legend(layers, medium, with_lines=False), points, medium)
