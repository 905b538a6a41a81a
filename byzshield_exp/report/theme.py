"""Sizes, fonts and colours of figures, on paper and on a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

# Okabe and Ito's palette without yellow, which is lost on white; neighbours differ in grey as well.
# Source: Okabe and Ito, "Color Universal Design", 2008.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#D55E00", "#56B4E9", "#009E73", "#CC79A7")
DASHES: tuple[tuple[float, ...], ...] = (
    (), (4.0, 2.0), (1.2, 1.5), (6.0, 1.5, 1.2, 1.5), (8.0, 3.0), (2.5, 1.0, 1.0, 1.0),
)  # fmt: skip
# Vega's forms and the same as paths of radius 0.3, for the middle of a legend's line.
SHAPES = {
    "circle": "M-.3,0A.3,.3,0,1,1,.3,0A.3,.3,0,1,1,-.3,0Z",
    "square": "M-.27,-.27H.27V.27H-.27Z",
    "triangle-up": "M-.32,.28L0,-.32L.32,.28Z",
    "diamond": "M-.36,0L0,-.36L.36,0L0,.36Z",
    "cross": "M-.32,-.11H-.11V-.32H.11V-.11H.32V.11H.11V.32H-.11V.11H-.32Z",
    "triangle-right": "M-.28,-.32L.32,0L-.28,.32Z",
}
# Of parts of a bar: viridis, from dark to light, so that neighbours differ in grey.
STACKED = ("#440154", "#414487", "#2A788E", "#22A884", "#7AD151")
OTHERS = "#E3E3E3"
HEATMAP = "cividis"  # its luminance grows evenly, so that grey keeps the order
GREY = "#666666"
COLUMN, PAGE = 241.0, 505.0  # points: 8.5 cm and 17.8 cm, one and two columns of a paper
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"


@dataclass(frozen=True)
class Medium:
    """Where a figure is looked at.

    Attributes:
        scale: of all sizes; 1: points on paper.
        interactive: whether there are tooltips, and a legend that selects.
    """

    scale: float = 1.0
    interactive: bool = False

    def __call__(self, points: float | int) -> float:
        """Return a length of the paper's on this medium."""
        return points * self.scale

    def area(self, points: float | int) -> float:
        """Return an area of the paper's on this medium: the size of a marker."""
        return points * self.scale**2


PAPER = Medium()
SCREEN = Medium(1.75, interactive=True)


@dataclass(frozen=True)
class Styles:
    """The colour, dash and shape of each series, by its place.

    Attributes:
        count: of series.
    """

    count: int

    @property
    def colours(self) -> list[str]:
        """One per series."""
        return [COLOURS[at % len(COLOURS)] for at in range(self.count)]

    @property
    def dashes(self) -> list[tuple[float, ...]]:
        """One per series, in points; fewer than colours, so that 42 series differ."""
        return [DASHES[at % len(DASHES)] for at in range(self.count)]

    @property
    def shapes(self) -> list[str]:
        """One per series, as dashes."""
        return [list(SHAPES)[at % len(SHAPES)] for at in range(self.count)]

    @property
    def symbols(self) -> list[str]:
        """The paths of a legend: a line with its dash and its marker."""
        return [
            _line(dash) + SHAPES[shape]
            for dash, shape in zip(self.dashes, self.shapes, strict=True)
        ]


def _line(dash: tuple[float, ...]) -> str:
    """Draw a dash as a path from -1 to 1."""
    path, at, parts = "", -1.0, cycle(dash or (40, 1))
    while at < 1:
        end = min(1.0, at + next(parts) / 10)
        path += f"M{at:.2f},0H{end:.2f}"
        at = end + next(parts) / 10
    return path


def config(medium: Medium) -> dict[str, Any]:
    """Return Vega-Lite's configuration: 7 and 8 points on paper."""
    small, large = medium(7), medium(8)
    text = {"labelFontSize": small, "titleFontSize": large, "titleFontWeight": "normal"}
    return {
        "background": "white",
        "font": FONT,
        "padding": medium(3),
        "view": {"stroke": "#bbbbbb", "strokeWidth": medium(0.5)},
        "axis": {
            **text, "labelColor": "#222222", "titleColor": "black", "gridColor": "#e6e6e6",
            "gridWidth": medium(0.5), "domainColor": "#888888", "domainWidth": medium(0.5),
            "tickColor": "#888888", "tickWidth": medium(0.5), "tickSize": medium(3),
            "titlePadding": medium(4), "labelPadding": medium(2), "labelLimit": medium(220),
            "labelOverlap": "greedy", "labelFlush": False, "tickCount": 5,
        },
        "legend": {
            **text, "labelLimit": 0, "rowPadding": medium(1.5), "columnPadding": medium(8),
            "titleLimit": 0, "offset": medium(6), "padding": 0, "labelOffset": medium(3),
        },
        "header": {**text, "labelFontSize": large, "labelPadding": medium(3), "labelLimit": 0,
                   "title": None},
        "line": {"strokeWidth": medium(1.3)},
        "rule": {"strokeWidth": medium(0.8)},
        "text": {"fontSize": small},
        "point": {"size": medium.area(18), "strokeWidth": medium(1)},
    }  # fmt: skip


def width_of(names: Sequence[str]) -> float:
    """Return about how many points the longest of some texts takes."""
    return 3.9 * max(map(len, names), default=1)


def legend_columns(names: Sequence[str], width: float) -> int:
    """Return how many columns a legend below a figure may have.

    Args:
        names: of the series.
        width: below the panels, in points.
    """
    return max(1, min(len(names), int(width // (width_of(names) + 36))))  # symbol and padding
