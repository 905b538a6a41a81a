"""Draw a comparison as figures: our curves with the paper's ends, and all values side by side."""

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from byzshield_exp.commands.reproduce.comparison import Comparison
from byzshield_exp.commands.reproduce.spelling import MEASURES, laid_out
from byzshield_exp.commands.reproduce.value_chart import of_finals, of_measures, value_chart
from byzshield_exp.report.curves import Reference, bans, curve_points, starts
from byzshield_exp.report.figures import Figure
from byzshield_exp.report.lines import curve_chart
from byzshield_exp.report.panels import Panels
from byzshield_exp.report.words import measure
from byzshield_exp.results import load
from byzshield_exp.results.outcome import ACCURACIES

_ENDS = "Hollow diamonds are the final accuracies that the paper reports."
_VALUES = "Filled: here, mean and range over the seeds; hollow: {obtained}."


def drawn(comparison: Comparison) -> Iterator[Figure]:
    """Make the figures of a comparison that has accuracies."""
    figure, stem = comparison.figure, comparison.figure.name.replace("/", "_")
    if figure.phases or not any(run.evaluations for run in comparison.runs):
        return
    yield _curves(comparison, stem)
    values = of_measures(comparison)
    if len(values):
        measures = "; ".join(f"{MEASURES[name]}: {said}" for name, said in figure.measures.items())
        caption = f"{_VALUES.format(obtained=figure.obtained)} In the paper, {measures}."
        draw = partial(value_chart, values, 3)
        title = f"{figure.title}: values here and in the paper"
        yield Figure(f"{stem}_values", title, caption, draw, _table(comparison))


def overview(group: str, compared: Sequence[Comparison]) -> Figure | None:
    """Draw the final accuracies of all figures of a paper; None if it reports none."""
    shown = [one for one in compared if one.figure.values and not one.figure.phases]
    if not shown:
        return None
    values = of_finals(shown)
    draw = partial(value_chart, values, 2)
    caption = _VALUES.format(obtained=shown[0].figure.obtained)
    title = f"{shown[0].figure.paper}: final accuracies"
    return Figure(f"{group}_overview", title, caption, draw, values)


def _curves(comparison: Comparison, stem: str) -> Figure:
    figure = comparison.figure
    labels = {str(run.folder): figure.label(run.curve) for run in comparison.runs}
    found = load([str(run.folder) for run in comparison.runs if run.evaluations])
    runs = found.runs.assign(row="", column="", series=found.runs["folder"].map(labels))
    what = measure(next(name for name in ACCURACIES if name in found.steps))
    points = curve_points(runs, found.steps, what)
    panels = Panels([one for one in map(figure.label, figure.curves) if one in set(runs["series"])])
    references = _ends(comparison, panels.series, float(points["step"].max()))
    draw = partial(
        curve_chart,
        points,
        panels,
        what,
        bans=bans(runs, found.steps, points),
        starts=starts(runs),
        references=references,
    )
    return Figure(stem, figure.title, _ENDS * bool(references), draw, _table(comparison))


def _ends(comparison: Comparison, series: Sequence[str], last: float) -> list[Reference]:
    """Return the paper's final accuracies of the curves that are drawn."""
    finals = {
        comparison.figure.label(curve): comparison.entries[curve, "final"].paper
        for curve in comparison.figure.curves
    }
    return [
        Reference(label, last, value.mean)
        for label, value in finals.items()
        if value is not None and label in series
    ]


def _table(comparison: Comparison) -> pd.DataFrame:
    head, cells = laid_out(comparison)
    return pd.DataFrame(cells, columns=pd.Index(head))
