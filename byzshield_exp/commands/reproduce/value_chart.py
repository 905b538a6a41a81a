"""Draw values of a paper and ours as marks on a line for each curve."""

from collections.abc import Iterable, Sequence

import altair as alt
import pandas as pd

from byzshield_exp.commands.reproduce.comparison import Compared, Comparison
from byzshield_exp.commands.reproduce.spelling import MEASURES
from byzshield_exp.report.theme import COLOURS, GREY, PAGE, PAPER, Medium, config

WHO = ("here", "the paper")
_LINE, _LABELS = 13.0, 92.0  # points between two curves, and for their names


def of_measures(comparison: Comparison) -> pd.DataFrame:
    """Return what :func:`value_chart` draws: a panel for each measure that the paper has."""
    entries = comparison.entries.values()
    panels = [one for one in comparison.figure.measures if _has_paper(entries, one)]
    return _frame(
        (MEASURES[measure], comparison, entry)
        for measure in panels
        for entry in entries
        if entry.measure == measure
    )


def of_finals(compared: Iterable[Comparison]) -> pd.DataFrame:
    """Return what :func:`value_chart` draws: a panel for each figure, its final accuracies."""
    return _frame(
        (comparison.figure.title, comparison, entry)
        for comparison in compared
        for entry in comparison.entries.values()
        if entry.measure == "final"
    )


def value_chart(data: pd.DataFrame, columns: int, medium: Medium = PAPER) -> alt.TopLevelMixin:
    """Draw a panel for each figure or measure.

    Args:
        data: with ``panel``, ``curve``, ``who`` (one of ``WHO``), ``mean``, ``low`` and ``high``,
            in [0, 1].
        columns: of panels beside each other.
        medium: paper or screen.
    """
    panels = list(dict.fromkeys(data["panel"]))
    columns = min(columns, len(panels))
    has_own_curves = data.groupby("panel")["curve"].agg(frozenset).nunique() > 1
    labels = _LABELS * (columns if has_own_curves else 1)
    width = (PAGE - labels - 12 * (columns - 1)) / columns
    chart = alt.layer(*_layers(data, medium)).properties(
        width=medium(width), height=alt.Step(medium(_LINE))
    )
    header = alt.Header(labelAnchor="start", title=None)
    wrapped = alt.Facet("panel:N", sort=panels, title=None, header=header)
    faceted = chart.facet(facet=wrapped, columns=columns, spacing=medium(12.0))
    if has_own_curves:
        faceted = faceted.resolve_scale(y="independent")
    return faceted.configure(**config(medium))


def _layers(data: pd.DataFrame, medium: Medium) -> Sequence[alt.Chart]:
    axis = alt.Axis(labelLimit=medium(_LABELS), minExtent=medium(_LABELS), grid=True)
    y = alt.Y("curve:N", sort=None, title=None, axis=axis)
    x = alt.X("mean:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(data).encode(y=y, x=x)
    legend = alt.Legend(
        title=None, orient="bottom", direction="horizontal", symbolSize=medium.area(40.0)
    )
    who = alt.Scale(domain=list(WHO), range=[COLOURS[0], COLOURS[3]])
    shapes = alt.Scale(domain=list(WHO), range=["circle", "diamond"])
    colour = alt.Color("who:N", scale=who, legend=legend)
    fill = alt.when(f"datum.who === '{WHO[0]}'").then(colour).otherwise(alt.value("white"))
    tooltip = [
        alt.Tooltip("curve:N"),
        alt.Tooltip("who:N", title="of"),
        *(alt.Tooltip(f"{key}:Q", format=".3f") for key in ("mean", "low", "high")),
    ]
    return [
        base.mark_line(color=GREY, strokeWidth=medium(0.5)).encode(detail="curve:N"),
        base.mark_rule(strokeWidth=medium(1.5)).encode(x="low:Q", x2="high:Q", color=colour),
        base.mark_point(size=medium.area(30.0), strokeWidth=medium(1.0), opacity=1).encode(
            color=colour,
            fill=fill,
            shape=alt.Shape("who:N", scale=shapes, legend=legend),
            tooltip=tooltip if medium.interactive else alt.Undefined,
        ),
    ]


def _frame(entries: Iterable[tuple[str, Comparison, Compared]]) -> pd.DataFrame:
    rows = [
        {
            "panel": panel,
            "curve": comparison.figure.label(entry.curve),
            "who": who,
            "mean": value.mean,
            "low": value.lowest,
            "high": value.highest,
        }
        for panel, comparison, entry in entries
        for who, value in zip(WHO, (entry.ours, entry.paper), strict=True)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["panel", "curve", "who", "mean", "low", "high"])


def _has_paper(entries: Iterable[Compared], measure: str) -> bool:
    return any(entry.paper for entry in entries if entry.measure == measure)
