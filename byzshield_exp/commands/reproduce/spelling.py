"""Spell a comparison: a table for people, and one for programs."""

import csv
import io
from collections.abc import Iterator

from byzshield_exp.commands.reproduce.comparison import Comparison, summed_up
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
    """Lay out percentages; ours are means over the seeds, the first measure with its range."""
    figure, (first, *_) = comparison.figure, comparison.figure.measures
    has_paper = bool(figure.values)
    start, *others = ["paper", "ours", "difference"] if has_paper else ["ours"]
    head = ["curve, test accuracy in %"]
    for measure in figure.measures:
        head += [f"{MEASURES[measure]}: {start}", *others]
    cells = []
    for curve in figure.curves:
        line = [figure.label(curve)]
        for measure in figure.measures:
            entry = comparison.entries[curve, measure]
            line += [_percent(entry.paper, figure.digits)] if has_paper else []
            line.append(_percent(entry.ours, max(figure.digits, 1), measure == first))
            line += [_signed(entry.difference, figure.digits)] if has_paper else []
        cells.append([*line, comparison.states(curve)])
    return [*head, "runs"], cells


def _signed(share: float | None, digits: int) -> str:
    return "" if share is None else f"{100 * share:+.{digits}f}"


def _percent(value: PaperValue | None, digits: int, with_range: bool = True) -> str:
    if value is None:
        return "-"
    mean, low, high = (
        f"{100 * number:.{digits}f}" for number in (value.mean, value.lowest, value.highest)
    )
    return f"{mean} ({low} to {high})" if with_range and low != high else mean


def _times(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Lay out seconds of a step, and sums as multiples of the first curve's."""
    figure = comparison.figure
    phases = [*figure.phases[figure.curves[0]]]
    said = [*phases, "sum", "times the first"]
    theirs = {curve: sum(figure.phases[curve].values()) for curve in figure.curves}
    mine = {curve: _mean_phases(comparison, curve) for curve in figure.curves}
    sums = {curve: sum(found.values()) for curve, found in mine.items()}
    first, cells = figure.curves[0], []
    for curve in figure.curves:
        line = [_pair(figure.phases[curve][one], mine[curve].get(one)) for one in phases]
        line.append(_pair(theirs[curve], sums[curve] or None))
        ratio = sums[curve] / sums[first] if sums[curve] and sums[first] else None
        line.append(_pair(theirs[curve] / theirs[first], ratio, ".2f"))
        cells.append([figure.label(curve), *line])
    return ["seconds of a step", *(f"{one}: paper / ours" for one in said)], cells


def _pair(paper: float, ours: float | None, form: str = ".4f") -> str:
    return f"{paper:.2f} / {'-' if ours is None else format(ours, form)}"


def _mean_phases(comparison: Comparison, curve: str) -> dict[str, float]:
    runs = [run.phases for run in comparison.of(curve) if run.values and run.phases]
    found = {phase: summed_up([run[phase] for run in runs]) for phase in (runs or [{}])[0]}
    return {phase: value.mean for phase, value in found.items() if value}


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
