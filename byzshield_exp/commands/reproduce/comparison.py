"""Compare our runs of a figure with its published values."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import mean

from byzshield_exp.commands.reproduce.measured import MeasuredRun
from byzshield_exp.commands.reproduce.published import PaperFigure, PaperValue

_CLOSE = 0.01  # curves less than a percentage point apart have no order


@dataclass(frozen=True)
class Compared:
    """One measure of one curve; values in [0, 1], None where there is none."""

    curve: str
    measure: str
    paper: PaperValue | None
    ours: PaperValue | None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's, of the means."""
        if self.paper is None or self.ours is None:
            return None
        return self.ours.mean - self.paper.mean


@dataclass(frozen=True)
class Comparison:
    """A figure, and our runs of it at one scale."""

    figure: PaperFigure
    scale: str
    runs: tuple[MeasuredRun, ...]

    @cached_property
    def entries(self) -> dict[tuple[str, str], Compared]:
        """What is compared, by curve and measure."""
        return {
            (curve, measure): Compared(
                curve,
                measure,
                self.figure.values.get(curve, {}).get(measure),
                summed_up([run.values[measure] for run in self.of(curve) if run.values]),
            )
            for curve in self.figure.curves
            for measure in self.figure.measures
        }

    @property
    def seeds(self) -> list[int]:
        """The seeds of the finished runs."""
        return sorted({run.seed for run in self.runs if run.values and run.seed is not None})

    def of(self, curve: str) -> list[MeasuredRun]:
        """The runs of a curve."""
        return [run for run in self.runs if run.curve == curve]

    def states(self, curve: str) -> str:
        """Count the runs of a curve by state: ``2 done, 1 diverged``."""
        counts = Counter(run.state for run in self.of(curve))
        return ", ".join(f"{count} {state}" for state, count in counts.items()) or "not run"

    @property
    def missing(self) -> list[str]:
        """Name the runs that have no values, and why."""
        lines = [
            f"{self.figure.label(run.curve)}, seed {run.seed}: {run.state}"
            + (f" ({run.error})" if run.error else "")
            for run in self.runs
            if not run.values
        ]
        absent = [self.figure.label(one) for one in self.figure.curves if not self.of(one)]
        return lines + [f"{label}: not run" for label in absent]

    @cached_property
    def order(self) -> str:
        """Say how many pairs of curves are in the paper's order after the last step."""
        finals = [self.entries[curve, "final"] for curve in self.figure.curves]
        known = [one for one in finals if one.difference is not None]
        told = [pair for pair in combinations(known, 2) if _are_apart(pair, of_paper=True)]
        if not told:
            return ""
        clear = [pair for pair in told if _are_apart(pair, of_paper=False)]
        turned = [pair for pair in clear if _higher(pair, True) is not _higher(pair, False)]
        line = f"Pairs of curves that are apart in the paper: {len(told)}. Here "
        line += f"{len(clear) - len(turned)} are in the same order, "
        line += f"{len(told) - len(clear)} too close, {len(turned)} the other way"
        names = [
            " before ".join(self.figure.label(one.curve) for one in sorted_by_ours(pair))
            for pair in turned
        ]
        return f"{line}{': ' if names else ''}{'; '.join(names)}."


def summed_up(values: Sequence[float]) -> PaperValue | None:
    """Return mean and range; None of nothing."""
    return PaperValue(mean(values), min(values), max(values)) if values else None


def sorted_by_ours(pair: Sequence[Compared]) -> list[Compared]:
    """Sort by our means, the highest first."""
    return sorted(pair, key=lambda one: -1.0 if one.ours is None else one.ours.mean, reverse=True)


def _are_apart(pair: tuple[Compared, Compared], of_paper: bool) -> bool:
    low, high = sorted(_values_of(pair, of_paper), key=lambda value: value.mean)
    return high.lowest - low.highest >= _CLOSE


def _higher(pair: tuple[Compared, Compared], of_paper: bool) -> Compared:
    first, second = _values_of(pair, of_paper)
    return pair[0] if first.mean > second.mean else pair[1]


def _values_of(pair: tuple[Compared, Compared], of_paper: bool) -> list[PaperValue]:
    values = [one.paper if of_paper else one.ours for one in pair]
    return [value for value in values if value is not None]
