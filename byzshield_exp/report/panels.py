"""Arrange a figure: which runs share a curve, and which panel it is in."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from byzshield_exp.report.theme import COLUMN, PAGE, Medium, Styles, config, legend_columns

_MOST_WIDE = 3  # panels beside each other on a page


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
        """How many panels are beside each other."""
        return len(self.columns) if len(self.rows) > 1 else min(len(self.columns), _MOST_WIDE)

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

    def key(self, plain: alt.Chart, medium: Medium, with_lines: bool = True) -> alt.Chart:
        """Make a layer that draws nothing but the legend below: marker, and line with its dash."""
        symbols = self.styles.symbols if with_lines else self.styles.shapes
        size = medium.area(200 if with_lines else 30)
        columns = legend_columns(self.series, self.width - 40)
        legend = alt.Legend(
            title=None, orient="bottom", columns=columns, symbolSize=size, symbolOpacity=1,
            symbolStrokeWidth=medium(1.3), symbolDash=[1, 0],
        )  # fmt: skip
        colours = self._scale(self.styles.colours)
        return plain.transform_filter("false").mark_point(filled=True).encode(
            shape=alt.Shape("series:N", scale=self._scale(symbols), legend=legend),
            fill=alt.Fill("series:N", scale=colours, legend=legend),
            stroke=alt.Stroke("series:N", scale=colours, legend=legend),
        )  # fmt: skip

    def _by_series(self, values: Sequence[object]) -> alt.ExprRef:
        known = json.dumps(dict(zip(self.series, values, strict=True)))
        return alt.ExprRef(f"{known}[datum.series]")

    def _scale(self, values: Sequence[object]) -> alt.Scale:
        return alt.Scale(domain=list(self.series), range=list(values))

    def arranged(self, chart: Any, medium: Medium) -> alt.TopLevelMixin:
        """Give a chart its size, its panels by ``row`` and ``column``, and the theme."""
        if self.count == 1:
            sized = chart.properties(
                width=medium(self.width), height=medium(self.height),
                autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
            )  # fmt: skip
            return sized.configure(**config(medium))
        inner = (self.width - 42 - 14 * (self.wide - 1)) / self.wide
        sized = chart.properties(width=medium(inner), height=medium(min(self.height, 0.7 * inner)))
        column = alt.Column("column:N", sort=list(self.columns), title=None)
        row = alt.Row("row:N", sort=list(self.rows), title=None)
        if len(self.rows) == 1:
            wrapped = alt.Facet("column:N", sort=list(self.columns), title=None)
            faceted = sized.facet(facet=wrapped, columns=self.wide, spacing=medium(10))
        elif len(self.columns) == 1:
            faceted = sized.facet(row=row, spacing=medium(10))
        else:
            faceted = sized.facet(column=column, row=row, spacing=medium(10))
        return faceted.configure(**config(medium))
