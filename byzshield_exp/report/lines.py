"""Draw curves over steps."""

from collections.abc import Sequence
from math import inf

import altair as alt
import pandas as pd

from byzshield_exp.report.curves import Reference, as_frame, ceiling, layered, marked
from byzshield_exp.report.panels import SERIES, Panels, hovering, told, value_axis
from byzshield_exp.report.theme import GREY, PAPER, Medium
from byzshield_exp.report.words import Measure


def curve_chart(
    points: pd.DataFrame,
    panels: Panels,
    measure: Measure,
    medium: Medium = PAPER,
    *,
    bans: pd.DataFrame | None = None,
    starts: pd.DataFrame | None = None,
    levels: pd.DataFrame | None = None,
    references: Sequence[Reference] = (),
) -> alt.TopLevelMixin:
    """Draw a line for each series with a band from its lowest to its highest run.

    Args:
        points: of :func:`~byzshield_exp.report.curves.curve_points`.
        panels: the arrangement.
        measure: what the points are.
        medium: paper or screen.
        bans: of :func:`~byzshield_exp.report.curves.bans`: hollow triangles.
        starts: of :func:`~byzshield_exp.report.curves.starts`: a vertical rule with its words.
        levels: ``row``, ``column``, ``series``, ``mean``: a horizontal rule over all steps.
        references: hollow marks with their labels, for example a paper's values.
    """
    empty = pd.DataFrame()
    curve = points.assign(is_marked=marked(points, panels.series))
    data = layered(
        [
            ("curve", curve),
            ("ban", empty if bans is None else bans),
            ("start", empty if starts is None else _said(starts)),
            ("level", empty if levels is None else levels),
            ("reference", as_frame(references)),
        ]
    )
    present = set(data["kind"])
    whole = alt.Axis(tickMinStep=1)
    x = alt.X("step:Q", title="step", axis=whole, scale=alt.Scale(nice=False, zero=True))
    spans = {name: data[name].fillna(data["mean"]) for name in ("low", "high")}
    most = ceiling(points, measure)
    y = value_axis("mean", data.assign(**spans), measure, most=most)
    plain = alt.Chart()
    base = plain.encode(x=x, y=y, detail=alt.Detail("series:N"))
    inside = base.transform_filter(f"datum.mean <= {most}") if most < inf else base
    layers = [_level(plain.encode(y=y), panels, medium), *_layers(base, inside, panels, medium)]
    layers += _hovering(inside, measure, medium) if medium.interactive else []
    drawn = panels.with_legend([layer for kind, layer in layers if kind in present], medium)
    if "start" in present:
        drawn += _start(plain.encode(x=x), medium)
    return panels.arranged(drawn, data, medium)


def _layers(
    base: alt.Chart, inside: alt.Chart, panels: Panels, medium: Medium
) -> list[tuple[str, alt.Chart]]:
    """Return what there may be on a panel, from the bottom to the top, with its kind.

    Marks are of what is ``inside`` the axis; where that is not all, lines and bands are cut.
    """
    colour, dash = panels.colour, panels.dash(medium)
    curve, ban, reference = _only(base, "curve"), _only(inside, "ban"), _only(base, "reference")
    clip = {} if inside is base else {"clip": True}
    hollow = {"stroke": colour, "fill": "white", "strokeWidth": medium(1)}
    point = _only(inside, "curve").transform_filter("datum.is_marked").mark_point
    band = curve.mark_area(fill=colour, opacity=0.18, **clip)
    label = reference.mark_text(align="right", dx=-medium(5), fill=colour)
    return [
        ("curve", band.encode(y=alt.Y("low:Q"), y2=alt.Y2("high"))),
        ("curve", curve.mark_line(stroke=colour, strokeDash=dash, **clip)),
        ("curve", point(fill=colour, shape=panels.shape, opacity=1, strokeWidth=0)),
        ("ban", ban.mark_point(shape="triangle-down", size=medium.area(22), **hollow)),
        ("reference", reference.mark_point(shape="diamond", size=medium.area(40), **hollow)),
        ("reference", label.encode(text=alt.Text("label:N"))),
    ]


def _only(base: alt.Chart, kind: str) -> alt.Chart:
    return base.transform_filter(f"datum.kind === '{kind}'")


def _level(base: alt.Chart, panels: Panels, medium: Medium) -> tuple[str, alt.Chart]:
    """Draw a value that all steps have in common."""
    style = {"stroke": panels.colour, "strokeDash": panels.dash(medium), "opacity": 0.7}
    return "level", _only(base, "level").mark_rule(**style)


def _start(base: alt.Chart, medium: Medium) -> list[alt.Chart]:
    """Draw where the attack starts, with its words beside the rule, readable on any curve."""
    start = _only(base, "start")
    place = {"align": "left", "baseline": "top", "dx": medium(2), "dy": medium(2)}
    halo = {"stroke": "white", "strokeWidth": medium(2.5), "opacity": 0.85}
    texts = [start.mark_text(**place, **halo), start.mark_text(**place, color=GREY)]
    return [
        start.mark_rule(color=GREY, strokeDash=[medium(1), medium(2)]),
        *(text.encode(y=alt.value(0), text=alt.Text("label:N")) for text in texts),
    ]


def _said(starts: pd.DataFrame) -> pd.DataFrame:
    return starts.assign(label="attack starts")


def _hovering(base: alt.Chart, measure: Measure, medium: Medium) -> list[tuple[str, alt.Chart]]:
    """Tell the values of points and bans under the pointer."""
    step = alt.Tooltip("step:Q")
    peers = [SERIES, step, alt.Tooltip("n:Q", title="peers banned")]
    return [
        ("curve", hovering(_only(base, "curve"), [SERIES, step, *told(measure)], medium)),
        ("ban", hovering(_only(base, "ban"), peers, medium)),
    ]
