"""Arrange a figure: which runs share a curve, and which panel it is in."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import altair as alt
import pandas as pd

from byzshield_exp.report.theme import (
    COLUMN,
    PAGE,
    Medium,
    Styles,
    config,
    legend_columns,
    width_of,
)
from byzshield_exp.report.words import Measure

_NARROW = 0.02  # accuracies closer than that are no picture of their differences
_MOST_TIMES = 1e4  # the lowest value, on an axis without powers of ten
_SPACING = 13.0  # points between panels
_MOST_WIDE = 3  # panels beside each other on a page, one more where there are many


@dataclass(frozen=True)
class Panels:
    """The arrangement of a figure.

    Attributes:
        series: names of curves, in the order of the legend.
        columns: titles of the panels beside each other; one empty title: there is one.
        rows: titles of the rows of panels.
        height: of a panel alone, in points.
    """

    series: Sequence[str] = ("",)
    columns: Sequence[str] = ("",)
    rows: Sequence[str] = ("",)
    height: float = 130.0
    is_wide: bool = field(default=False)

    @property
    def count(self) -> int:
        """How many panels there are."""
        return len(self.columns) * len(self.rows)

    @property
    def width(self) -> float:
        """Of the whole figure, in points."""
        return PAGE if self.count > 1 or self.is_wide else COLUMN

    @property
    def styles(self) -> Styles:
        """Of the series."""
        return Styles(len(self.series))

    @property
    def wide(self) -> int:
        """How many panels are beside each other: the last line is as full as may be."""
        count = len(self.columns)
        if len(self.rows) > 1:
            return count
        is_narrow = count > 2 * _MOST_WIDE and 1.15 * width_of(self.columns) < self._inner(
            _MOST_WIDE + 1
        )
        return math.ceil(count / math.ceil(count / (_MOST_WIDE + is_narrow)))

    @property
    def tall(self) -> float:
        """The height of a panel, in points."""
        return min(self.height, 0.7 * self._inner(self.wide)) if self.count > 1 else self.height

    def _inner(self, wide: int) -> float:
        """Return the width of each of some panels beside each other, in points."""
        return (self.width - 42 - (_SPACING + 2) * (wide - 1)) / wide

    @property
    def colour(self) -> alt.ExprRef:
        """The colour of a datum's series. Scales would take the legend its own."""
        return self._by_series(self.styles.colours)

    @property
    def shape(self) -> alt.ExprRef:
        """The form of the markers of a datum's series."""
        return self._by_series(self.styles.shapes)

    def dash(self, medium: Medium) -> alt.ExprRef:
        """The dash of a datum's series."""
        dashes = [[medium(part) for part in dash] or [1, 0] for dash in self.styles.dashes]
        return self._by_series(dashes)

    def _key(self, medium: Medium, with_lines: bool) -> alt.Chart:
        """Make a layer that draws nothing but the legend below: marker, and line with its dash."""
        symbols = self.styles.symbols if with_lines else self.styles.shapes
        size = medium.area(200 if with_lines else 30)
        columns = legend_columns(self.series, self.width - 40)
        legend = alt.Legend(
            title=None, orient="bottom", columns=columns, symbolSize=size, symbolOpacity=1,
            symbolStrokeWidth=medium(1.3), symbolDash=[1, 0],
        )  # fmt: skip
        colours = self._scale(self.styles.colours)
        return alt.Chart().transform_filter("false").mark_point(filled=True).encode(
            shape=alt.Shape("series:N", scale=self._scale(symbols), legend=legend),
            fill=alt.Fill("series:N", scale=colours, legend=legend),
            stroke=alt.Stroke("series:N", scale=colours, legend=legend),
        )  # fmt: skip

    def with_legend(self, layers: list[Any], medium: Medium, with_lines: bool = True) -> list[Any]:
        """Add a legend to layers of several series; on a screen a click on it selects one."""
        if len(self.series) < 2:
            return layers
        key = self._key(medium, with_lines)
        if not medium.interactive:
            return [*layers, key]
        chosen = alt.selection_point(fields=["series"], bind="legend")
        return [*(layer.transform_filter(chosen) for layer in layers), key.add_params(chosen)]

    def _by_series(self, values: Sequence[object]) -> alt.ExprRef:
        known = json.dumps(dict(zip(self.series, values, strict=True)))
        return alt.ExprRef(f"{known}[datum.series]")

    def _scale(self, values: Sequence[object]) -> alt.Scale:
        return alt.Scale(domain=list(self.series), range=list(values))

    def filled(self, data: pd.DataFrame) -> pd.DataFrame:
        """Add a row that draws nothing to each panel without data.

        Vega-Lite moves panels into the places of those before them that have no row.
        """
        there = {*zip(data["row"], data["column"], strict=True)}
        every = product(self.rows, self.columns)
        empty = [{"row": row, "column": name} for row, name in every if (row, name) not in there]
        return pd.concat([data, pd.DataFrame(empty)], ignore_index=True) if empty else data

    def arranged(self, layers: Sequence[Any], data: pd.DataFrame, medium: Medium) -> Any:
        """Draw layers over each other, in panels by ``row`` and ``column``, with the theme.

        Layers have no data of their own: Altair compares those of all.
        """
        chart = alt.layer(*layers, data=self.filled(data) if self.count > 1 else data)
        if self.count == 1:
            sized = chart.properties(
                width=medium(self.width), height=medium(self.height),
                autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
            )  # fmt: skip
            return sized.configure(**config(medium))
        inner = self._inner(self.wide)
        sized = chart.properties(width=medium(inner), height=medium(self.tall))
        faceted = sized.facet(**self._places(), spacing=medium(_SPACING))
        if self.count % self.wide:  # Vega-Lite draws shared axes below empty places, not panels
            faceted = faceted.resolve_axis(x="independent")
        return faceted.configure(**config(medium))

    def _places(self) -> dict[str, Any]:
        """Say how panels lie: in rows and columns, or one after the other over several lines."""
        if len(self.rows) == 1:
            every = alt.Facet("column:N", sort=list(self.columns), title=None)
            return {"facet": every, "columns": self.wide}
        row = alt.Row("row:N", sort=list(self.rows), title=None)
        if len(self.columns) == 1:
            return {"row": row}
        return {"row": row, "column": alt.Column("column:N", sort=list(self.columns), title=None)}


def value_axis(
    column: str,
    points: pd.DataFrame,
    measure: Measure,
    channel: Any = alt.Y,
    padding: float = 0.0,
    most: float = math.inf,
    **options: Any,
) -> Any:
    """Choose an axis: from 0, but for accuracies; by powers of ten where one run dwarfs all others.

    Args:
        column: of the points.
        points: with ``low`` and ``high``.
        measure: what they are.
        channel: Altair's class of the axis.
        padding: of accuracies, beyond the lowest and the highest, in pixels.
        most: where an axis by powers of ten ends.
        options: of the encoding.
    """
    low, high = float(points["low"].min()), float(points["high"].max())
    title = {"title": measure.axis, **options}
    if measure.is_accuracy:
        span = [low, high] if high - low > _NARROW else [low - _NARROW, high + _NARROW]
        domain = [max(0.0, span[0]), min(1.0, span[1])]
        scale = alt.Scale(domain=domain, nice=not padding, zero=False, padding=padding)
        return channel(f"{column}:Q", scale=scale, **title)
    if low > 0 and high > _MOST_TIMES * low:
        axis = alt.Axis(format="~e", tickCount=5)
        capped = {"domain": [low, most]} if most < high else {}
        return channel(f"{column}:Q", scale=alt.Scale(type="log", **capped), axis=axis, **title)
    whole = alt.Axis(tickMinStep=1) if measure.is_count else alt.Axis()
    return channel(f"{column}:Q", scale=alt.Scale(zero=True), axis=whole, **title)


SERIES = alt.Tooltip("series:N", title=" ")


def told(measure: Measure) -> list[alt.Tooltip]:
    """Return the tooltips of a mean over runs."""
    numbers = {"mean:Q": measure.axis, "low:Q": "lowest", "high:Q": "highest"}
    said = [alt.Tooltip(name, title=title, format=".4~f") for name, title in numbers.items()]
    return [*said, alt.Tooltip("n:Q", title="runs")]


def hovering(base: alt.Chart, tooltips: Sequence[alt.Tooltip], medium: Medium) -> alt.Chart:
    """Make a layer that is not seen and tells what is below the pointer."""
    points: alt.Chart = base.mark_point(size=medium.area(60), filled=True, opacity=0)
    return points.encode(tooltip=list(tooltips))
