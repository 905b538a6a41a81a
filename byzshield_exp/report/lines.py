"""Draw curves over steps."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from byzshield_exp.report.curves import Reference, as_frame, layered, marked
from byzshield_exp.report.panels import Panels, value_axis
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
    data = panels.filled(data)
    whole = alt.Axis(tickMinStep=1)
    x = alt.X("step:Q", title="step", axis=whole, scale=alt.Scale(nice=False, zero=True))
    y = value_axis("mean", points, measure)
    plain = alt.Chart(data)
    base = plain.encode(x=x, y=y, detail="series:N")
    layers = [_level(plain.encode(y=y), panels, medium), *_layers(base, panels, medium)]
    if medium.interactive:
        layers = _interactive(layers, base, measure, medium)
    layers += _start(plain.encode(x=x), medium)
    drawn = [layer for kind, layer in layers if kind in present]
    if len(panels.series) > 1:
        drawn.append(panels.key(plain, medium))
    return panels.arranged(alt.layer(*drawn), medium)


def _layers(base: alt.Chart, panels: Panels, medium: Medium) -> list[tuple[str, alt.Chart]]:
    """Return what there may be on a panel, from the bottom to the top, with its kind."""
    colour, dash = panels.colour, panels.dash(medium)
    curve, ban, reference = (_only(base, kind) for kind in ("curve", "ban", "reference"))
    hollow = {"stroke": colour, "fill": "white", "strokeWidth": medium(1)}
    point = curve.transform_filter("datum.is_marked").mark_point
    return [
        ("curve", curve.mark_area(fill=colour, opacity=0.18).encode(y="low:Q", y2="high:Q")),
        ("curve", curve.mark_line(stroke=colour, strokeDash=dash)),
        ("curve", point(fill=colour, shape=panels.shape, opacity=1, strokeWidth=0)),
        ("ban", ban.mark_point(shape="triangle-down", size=medium.area(22), **hollow)),
        ("reference", reference.mark_point(shape="diamond", size=medium.area(40), **hollow)),
        (
            "reference",
            reference.mark_text(align="right", dx=-medium(5), fill=colour).encode(text="label:N"),
        ),
    ]


def _only(base: alt.Chart, kind: str) -> alt.Chart:
    return base.transform_filter(f"datum.kind === '{kind}'")


def _level(base: alt.Chart, panels: Panels, medium: Medium) -> tuple[str, alt.Chart]:
    """Draw a value that all steps have in common."""
    style = {"stroke": panels.colour, "strokeDash": panels.dash(medium), "opacity": 0.7}
    return "level", _only(base, "level").mark_rule(**style)


def _start(base: alt.Chart, medium: Medium) -> list[tuple[str, alt.Chart]]:
    """Draw where the attack starts, with its words beside the rule, readable on any curve."""
    start = _only(base, "start")
    place = {"align": "left", "baseline": "top", "dx": medium(2), "dy": medium(2)}
    halo = {"stroke": "white", "strokeWidth": medium(2.5), "opacity": 0.85}
    texts = [start.mark_text(**place, **halo), start.mark_text(**place, color=GREY)]
    return [
        ("start", start.mark_rule(color=GREY, strokeDash=[medium(1), medium(2)])),
        *(("start", text.encode(y=alt.value(0), text="label:N")) for text in texts),
    ]


def _said(starts: pd.DataFrame) -> pd.DataFrame:
    return starts.assign(label="attack starts")


def _interactive(
    layers: list[tuple[str, alt.Chart]], base: alt.Chart, measure: Measure, medium: Medium
) -> list[tuple[str, alt.Chart]]:
    """Add tooltips and a legend that selects."""
    chosen = alt.selection_point(fields=["series"], bind="legend")
    faded = [(kind, layer.transform_filter(chosen)) for kind, layer in layers]
    numbers = {"mean:Q": measure.axis, "low:Q": "lowest", "high:Q": "highest"}
    tooltip = [
        alt.Tooltip("series:N", title=" "),
        "step:Q",
        *(alt.Tooltip(name, title=said, format=".4~f") for name, said in numbers.items()),
        alt.Tooltip("n:Q", title="runs"),
    ]
    banned = [
        alt.Tooltip("series:N", title=" "),
        "step:Q",
        alt.Tooltip("n:Q", title="peers banned"),
    ]
    over = {"size": medium.area(60), "filled": True, "opacity": 0}
    hover = _only(base, "curve").mark_point(**over).encode(tooltip=tooltip).add_params(chosen)
    return [
        *faded,
        ("curve", hover.transform_filter(chosen)),
        ("ban", _only(base, "ban").mark_point(**over).encode(tooltip=banned)),
    ]
