"""Spell a comparison: a table for people, and one for programs."""

import csv
import io
from collections.abc import Iterator

from byzshield_exp.commands.reproduce.comparison import Compared, Comparison, summed_up
from byzshield_exp.commands.reproduce.published import PaperValue
from byzshield_exp.distortion.report import columns

MEASURES = {"final": "final", "best": "best", "last5": "last 5", "lowest": "lowest"}


def spelled(comparison: Comparison, markdown: bool = False) -> str:
    """Spell the table of a figure, with the differences, the order and what is missing."""
    head, cells = laid_out(comparison)
    parts = [columns(head, cells, markdown)]
    parts += [comparison.order] if comparison.order else []
    if comparison.missing:
        parts.append(f"Missing: {'; '.join(comparison.missing)}.")
    return ("\n\n" if markdown else "\n").join(parts)


def laid_out(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the head and the cells of the table of a figure."""
    return _times(comparison) if comparison.figure.phases else _accuracies(comparison)


def _accuracies(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Lay out percentages, ours as mean (lowest to highest) over the seeds."""
    figure, first = comparison.figure, next(iter(comparison.figure.measures))
    has_values = bool(figure.values)
    head, cells = ["curve, test accuracy in %"], [[figure.label(one)] for one in figure.curves]
    for measure in figure.measures:
        word = MEASURES[measure]
        head += [f"{word}: paper", "ours", "difference"] if has_values else [word]
        for line, curve in zip(cells, figure.curves, strict=True):
            line += _three(comparison.entries[curve, measure], figure.digits, measure == first)[
                0 if has_values else 1 : 3 if has_values else 2
            ]
    for line, curve in zip(cells, figure.curves, strict=True):
        line.append(comparison.states(curve))
    return [*head, "runs"], cells


def _three(entry: Compared, digits: int, with_range: bool) -> list[str]:
    difference = "" if entry.difference is None else f"{100 * entry.difference:+.{digits}f}"
    ours = _percent(entry.ours, max(digits, 1), with_range)
    return [_percent(entry.paper, digits, True), ours, difference]


def _percent(value: PaperValue | None, digits: int, with_range: bool) -> str:
    if value is None:
        return "-"
    mean, low, high = (
        f"{100 * number:.{digits}f}" for number in (value.mean, value.lowest, value.highest)
    )
    return f"{mean} ({low} to {high})" if with_range and low != high else mean


def _times(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Lay out seconds of a step, and sums as multiples of the first curve's."""
    figure = comparison.figure
    phases = [*next(iter(figure.phases.values()))]
    head = ["seconds of a step"]
    head += [f"{phase}: paper / ours" for phase in phases]
    head += ["sum: paper / ours", "times the first: paper / ours"]
    ours = {curve: _mean_phases(comparison, curve) for curve in figure.curves}
    first = figure.curves[0]
    cells = []
    for curve in figure.curves:
        theirs, mine = figure.phases[curve], ours[curve]
        line = [f"{theirs[one]:.2f} / {_or_dash(mine.get(one), '.4f')}" for one in phases]
        sums = sum(theirs.values()), sum(mine.values()) or None
        line.append(f"{sums[0]:.2f} / {_or_dash(sums[1], '.4f')}")
        base = sum(ours[first].values())
        times = sums[1] / base if sums[1] and base else None
        line.append(
            f"{sums[0] / sum(figure.phases[first].values()):.1f} / {_or_dash(times, '.1f')}"
        )
        cells.append([figure.label(curve), *line])
    return head, cells


def _mean_phases(comparison: Comparison, curve: str) -> dict[str, float]:
    runs = [run.phases for run in comparison.of(curve) if run.values and run.phases]
    found = {phase: summed_up([run[phase] for run in runs]) for phase in (runs or [{}])[0]}
    return {phase: value.mean for phase, value in found.items() if value}


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def as_csv(comparison: Comparison) -> str:
    """Return all numbers as CSV: accuracies in [0, 1] or seconds."""
    text = io.StringIO()
    head = ["figure", "scale", "curve", "measure", "paper", "ours", "lowest", "highest", "runs"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for curve, measure, paper, ours in _numbers(comparison):
        count = sum(bool(run.values) for run in comparison.of(curve))
        mine = [ours.mean, ours.lowest, ours.highest] if ours else ["", "", ""]
        said = [f"{value:.6g}" if isinstance(value, float) else value for value in (paper, *mine)]
        writer.writerow([comparison.figure.name, comparison.scale, curve, measure, *said, count])
    return text.getvalue()


def _numbers(
    comparison: Comparison,
) -> Iterator[tuple[str, str, float | str, PaperValue | None]]:
    if not comparison.figure.phases:
        for (curve, measure), entry in comparison.entries.items():
            yield curve, measure, entry.paper.mean if entry.paper else "", entry.ours
    for curve, phases in comparison.figure.phases.items():
        runs = [run.phases for run in comparison.of(curve) if run.values and run.phases]
        for phase, paper in phases.items():
            yield curve, phase, paper, summed_up([run[phase] for run in runs])
