"""Heatmaps of the final value over two dimensions: of others the worst attack, the best rule."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import altair as alt
import pandas as pd

from byzshield_exp.report.comparisons import averaged, capital, finished
from byzshield_exp.report.figures import Figure
from byzshield_exp.report.study import ATTACK, CURVE, DEFENCE, Dimension, Study, listed
from byzshield_exp.report.theme import COLUMN, HEATMAP, PAGE, Medium, config
from byzshield_exp.report.words import Measure

_PAIRS = (
    (ATTACK, DEFENCE), (ATTACK, "aggregator"), (ATTACK, "approach"), (ATTACK, CURVE),
    ("q", DEFENCE), ("q", "aggregator"), ("q", "approach"), ("K", "r"), ("q", ATTACK),
    ("approach", "aggregator"),
)  # fmt: skip
_MOST = 5
_CELL = 17.0  # points


def heatmaps(study: Study, is_chosen: bool = False) -> Iterator[Figure]:
    """Draw the pairs of dimensions that people look at; all pairs if they were chosen.

    Args:
        study: the runs.
        is_chosen: whether the user named the dimensions.
    """
    study = finished(study)
    known = [one for one in study.dimensions if len(one.short) > 1]
    pairs = [study.named(*pair) for pair in _PAIRS]
    pairs = [pair for pair in pairs if len(pair) == 2 and all(one in known for one in pair)]
    if is_chosen or (not pairs and len(known) == 2):
        pairs = [list(pair) for pair in combinations(known, 2)]
    for pair in pairs[:_MOST]:
        if len(study.runs):
            yield _heatmap(study, *pair)


def _heatmap(study: Study, across: Dimension, down: Dimension) -> Figure:
    others = [one for one in study.dimensions if one not in (across, down)]
    cells = _cells(study, across, down, others)
    what, (best, worst) = study.measure, _sides(others)
    parts = [f"worst {listed(worst)}"] * bool(worst) + [f"best {listed(best)}"] * bool(best)
    title = f"{what.final} by {across.brief} and {down.brief}"
    of = f", for the {' and the '.join(parts)}" if parts else ""
    caption = f"Cells are means over runs{of}." + " Colours from 0 to 1." * what.is_accuracy
    legend = ", ".join([what.axis, *parts])
    draw = partial(_chart, cells, across, down, legend, what)
    columns = {"across": across.title, "down": down.title, "mean": what.axis, "n": "runs"}
    columns |= {"which": ", ".join(parts)} if parts else {}
    table = cells.rename(columns=columns)[list(columns.values())]
    name = f"heatmap_{what.name}_{across.name}_{down.name}"
    return Figure(name, capital(title), caption, draw, table)


def _sides(others: Sequence[Dimension]) -> tuple[list[Dimension], list[Dimension]]:
    """Separate what the defence chooses from what liars choose."""
    return [one for one in others if not one.is_adversary], [
        one for one in others if one.is_adversary
    ]


def _cells(
    study: Study, across: Dimension, down: Dimension, others: Sequence[Dimension]
) -> pd.DataFrame:
    """Compute the cells: the mean over runs, its minimum over attacks, its maximum over the rest.

    A loss, a time and a size are worst where they are highest.
    """
    best, worst = _sides(others)
    sign = 1 if study.measure.is_accuracy else -1
    place = [across.column, down.column]
    means = averaged(study.runs, [*place, *(one.column for one in others)])
    means = means.assign(order=sign * means["mean"])
    chosen = [*place, *(one.column for one in best)]
    means = means.loc[means.groupby(chosen)["order"].idxmin()]
    means = means.loc[means.groupby(place)["order"].idxmax()]
    names = [means[one.column].map(dict(enumerate(one.long))) for one in [*worst, *best]]
    which = names[0].str.cat(names[1:], sep=", ") if names else ""
    return means.assign(
        across=means[across.column].map(dict(enumerate(across.short))),
        down=means[down.column].map(dict(enumerate(down.short))),
        which=which,
    ).reset_index(drop=True)


def _chart(
    cells: pd.DataFrame,
    across: Dimension,
    down: Dimension,
    legend: str,
    what: Measure,
    medium: Medium,
) -> Any:
    labels = max(map(len, down.short)) * 3.7 + 22  # points: with the title
    width = min(max(COLUMN - labels, 24.0 * len(across.short)), PAGE - labels)
    low, high = _colours(cells["mean"], what)
    scheme = alt.Scale(scheme=HEATMAP, domain=[low, high if high > low else low + 1e-9])
    digits = ".3f" if what.is_accuracy and width / len(across.short) > 24 else ".2f"
    ink = ["black" if mean > (low + high) / 2 else "white" for mean in cells["mean"]]
    data = cells[["across", "down", "mean", "low", "high", "n", "which"]].assign(ink=ink)
    sloped = max(map(len, across.short)) * 3.7 > width / len(across.short)
    axis = {"labelLimit": 0, "grid": False, "labelOverlap": False}
    colours = alt.Legend(
        title=legend, orient="top", direction="horizontal", format=digits.replace("f", "~f"),
        gradientThickness=medium(6), gradientLength=medium(min(width, 150)), tickCount=4,
    )  # fmt: skip
    base = alt.Chart().encode(
        x=alt.X("across:N", sort=list(across.short), title=across.title,
                axis=alt.Axis(labelAngle=-35 if sloped else 0, **axis)),
        y=alt.Y("down:N", sort=list(down.short), title=down.title, axis=alt.Axis(**axis)),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("across:N", title=across.title), alt.Tooltip("down:N", title=down.title),
        alt.Tooltip("mean:Q", title=what.axis, format=".4~f"), alt.Tooltip("n:Q", title="runs"),
        alt.Tooltip("which:N", title="of"),
    ]  # fmt: skip
    rects = base.mark_rect(stroke="white", strokeWidth=medium(0.5)).encode(
        color=alt.Color("mean:Q", scale=scheme, legend=colours if high > low else None),
        tooltip=tooltip,
    )
    text = base.mark_text(fill=alt.ExprRef("datum.ink")).encode(
        text=alt.Text("mean:Q", format=digits)
    )
    height = _CELL * len(down.short)
    sized = alt.layer(rects, text, data=data).properties(width=medium(width), height=medium(height))
    return sized.configure(**config(medium))


def _colours(means: pd.Series, what: Measure) -> tuple[float, float]:
    """Return the values of the darkest and the lightest colour: heatmaps of accuracies share it."""
    return (0.0, 1.0) if what.is_accuracy else (float(means.min()), float(means.max()))
