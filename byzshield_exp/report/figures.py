"""A figure of a report, and how the runs of a study are spread over its panels."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from altair.utils.schemapi import debug_mode

from byzshield_exp.report.panels import Panels
from byzshield_exp.report.study import ATTACK, CURVE, DEFENCE, Dimension, Study
from byzshield_exp.report.theme import Medium

_SERIES = (CURVE, DEFENCE, "aggregator", "approach", "pre_aggregator", "vote", "protocol")
_MOST_GRID, _MOST_PANELS, _MOST_FIGURES = 4, 12, 6


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure with what belongs to it.

    Attributes:
        name: of its files, without a suffix.
        title: what it shows.
        caption: what its lines and marks mean.
        draw: makes the chart for a medium.
        table: its numbers.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Medium], Any]
    table: pd.DataFrame = field(repr=False)

    def specification(self, medium: Medium) -> dict[str, Any]:
        """Return the chart for Vega-Lite, without Altair's checks, which take longer than it."""
        with debug_mode(False):
            specification: dict[str, Any] = self.draw(medium).to_dict(validate=False)
        return specification


@dataclass(frozen=True, eq=False)
class Spread:
    """Runs that share a figure, each with its place in it.

    Attributes:
        study: the runs, with ``row``, ``column`` and ``series``.
        panels: the arrangement.
        suffix: of the figure's name.
        said: end of its title.
        remark: end of its caption.
    """

    study: Study
    panels: Panels
    suffix: str
    said: str
    remark: str


def spread(study: Study, dimensions: Sequence[Dimension], **options: Any) -> Iterator[Spread]:
    """Give every dimension a place: colours, columns and rows of panels, then whole figures.

    Args:
        study: the runs.
        dimensions: what to tell apart.
        options: of the panels.

    Yields:
        One spread a figure, at most ``_MOST_FIGURES``; the last says how many are left out.
    """
    places, left = _places(dimensions)
    labels = study.order(left)
    for at, label in enumerate(labels[:_MOST_FIGURES]):
        part = study.of(study.labels(left) == label)
        runs = part.runs.assign(**{name: part.labels(given) for name, given in places.items()})
        series, columns, rows = (part.order(given) for given in places.values())
        panels = Panels(series, columns, rows, **options)
        missing = len(labels) - at - 1 if at + 1 == _MOST_FIGURES else 0
        yield Spread(
            Study(runs, study.steps, part.dimensions, study.measure),
            panels,
            f"_{slug(label)}" if label else "",
            f", {label}" if label else "",
            f" {missing} more figures of this kind are not drawn: by= chooses." * bool(missing),
        )


def _places(
    dimensions: Sequence[Dimension],
) -> tuple[dict[str, list[Dimension]], list[Dimension]]:
    """Choose the dimensions of colours, columns and rows; return the rest too."""
    left = sorted(dimensions, key=lambda one: one.name != ATTACK)
    series = [one for one in [_series(dimensions)] if one]
    left = [one for one in left if one not in series]
    column = left[:1] if left and len(left[0].long) <= _MOST_PANELS else []
    left = left[len(column) :]
    is_grid = column and left and max(len(column[0].long), len(left[0].long)) <= _MOST_GRID
    row = left[:1] if is_grid else []
    return {"series": series, "column": column, "row": row}, left[len(row) :]


def _series(dimensions: Sequence[Dimension]) -> Dimension | None:
    preferred = [one for name in _SERIES for one in dimensions if one.name == name]
    others = [one for one in dimensions if not one.is_adversary]
    return next(iter([*preferred, *others, *dimensions]), None)


def slug(text: str) -> str:
    """Make a part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
