"""Choose settings: those that do best under the attack that is worst for them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byzshield_exp.results.outcome import FINISHED

if TYPE_CHECKING:
    from pandas import DataFrame

SEED = "seed"
_SAME = 1e-12  # accuracies that differ by less are equal
_WRITTEN_OUT = 1e12  # whole numbers below it are written without an exponent

Values = dict[str, Any]  # by setting


@dataclass(frozen=True)
class Criterion:
    """What is chosen, and by what.

    Attributes:
        over: the settings to choose.
        worst: the settings whose worst combination counts.
        by: settings that are chosen for separately.
        averaged: the other settings that vary; the mean over them counts.
        metric: ``validation_accuracy`` or ``test_accuracy``.
    """

    over: tuple[str, ...]
    worst: tuple[str, ...]
    by: tuple[str, ...]
    averaged: tuple[str, ...]
    metric: str = "validation_accuracy"

    @property
    def points(self) -> tuple[str, ...]:
        """The settings whose every combination a candidate needs a run of."""
        return self.worst + self.averaged


@dataclass(frozen=True, eq=False)
class Candidate:
    """One combination of the settings to choose.

    Attributes:
        settings: its values.
        runs: its runs.
        value: mean accuracy under what is worst for it; NaN if runs are lacking.
        low: the lowest accuracy behind that mean.
        high: the highest.
        count: accuracies behind that mean.
        worst: what is worst for it; several if they are equal.
        lacking: the runs that it lacks, and why; empty: it can be chosen.
        diverged: how many runs NaN or Inf ended; each counts as 0.
    """

    settings: Values
    runs: "DataFrame"
    value: float
    low: float
    high: float
    count: int
    worst: list[Values]
    lacking: list[str]
    diverged: int


@dataclass(frozen=True, eq=False)
class Selection:
    """The candidates of one case, the best first, those that lack runs last.

    Attributes:
        case: the settings that this choice is for.
        candidates: all of them.
    """

    case: Values
    candidates: list[Candidate]

    @property
    def chosen(self) -> list[Candidate]:
        """The best ones: several if they are equal, none if all lack runs."""
        best = self.candidates[0].value
        return [one for one in self.candidates if abs(one.value - best) < _SAME]


def criterion(
    varied: Sequence[str],
    over: Sequence[str],
    worst: Sequence[str] = (),
    by: Sequence[str] | None = None,
    metric: str = "validation_accuracy",
) -> Criterion:
    """Say what becomes of each setting that varies.

    Args:
        varied: of the runs, as ``results.load`` returns them.
        over: to choose.
        worst: whose worst combination counts.
        by: to choose for separately; None: all others but the seed.
        metric: ``validation_accuracy`` or ``test_accuracy``.
    """
    rest = [key for key in varied if key not in (*over, *worst)]
    cases = [key for key in rest if key != SEED] if by is None else [*by]
    averaged = [key for key in rest if key not in cases]
    return Criterion(tuple(over), tuple(worst), tuple(cases), tuple(averaged), metric)


def choose(runs: "DataFrame", what: Criterion) -> list[Selection]:
    """Choose settings for every case.

    The value of a setting is the least, over the combinations of ``worst``, of the mean over
    ``averaged``. A run that diverged counts as 0, whatever it had reached. A setting is chosen only
    if it has a finished run for every combination of ``worst`` and ``averaged`` that any setting of
    its case has.

    Args:
        runs: one row a run, as of ``results.load``.
        what: to choose, and by what.
    """
    scored = runs.assign(_value=_values(runs, what.metric))
    return [
        Selection(case, sorted(_candidates(its, what), key=_place))
        for case, its in _groups(scored, what.by)
    ]


def _values(runs: "DataFrame", metric: str) -> "list[float]":
    """The value of each run; NaN if it has none."""
    return [
        0.0 if state == "diverged" and value == value else value if state in FINISHED else math.nan
        for state, value in zip(runs["state"], runs[metric], strict=True)
    ]


def _candidates(runs: "DataFrame", what: Criterion) -> Iterator[Candidate]:
    """Make the candidates of a case."""
    keys = what.points
    asked = {repr(point): point for point, _ in _groups(runs, keys)}
    for settings, its in _groups(runs, what.over):
        there = {repr(point): mine for point, mine in _groups(its, keys)}
        lacking = [
            said for name, point in asked.items() if (said := _lack(point, there.get(name), what))
        ]
        good = its[its["_value"].notna()]
        worst = _worst(good, what) if not lacking else []
        values = worst[0][1]["_value"].tolist() if worst else [math.nan]
        yield Candidate(
            settings, its, _mean(values), min(values), max(values), len(values),
            [point for point, _ in worst], lacking, int((its["state"] == "diverged").sum()),
        )  # fmt: skip


def _worst(runs: "DataFrame", what: Criterion) -> "list[tuple[Values, DataFrame]]":
    """The combinations with the least mean, and their runs."""
    cells = [
        (_mean(its["_value"].tolist()), point, its) for point, its in _groups(runs, what.worst)
    ]
    least = min(value for value, _, _ in cells)
    return [(point, its) for value, point, its in cells if value - least < _SAME]


def _lack(point: Values, runs: "DataFrame | None", what: Criterion) -> str:
    """Say why there is no value at a point; empty if there is one."""
    said = named(point)
    if runs is None:
        return f"missing: {said}".rstrip(": ")
    if bool(runs["_value"].notna().any()):
        return ""
    last = runs.iloc[-1]
    if last["state"] in FINISHED:
        return f"no {what.metric.replace('_', ' ')}: {said}".rstrip(": ")
    why = f" ({last['error']})" if last["error"] else ""
    return f"{last['state']}: {said}{why}"


def _groups(runs: "DataFrame", keys: Sequence[str]) -> "Iterator[tuple[Values, DataFrame]]":
    """Split runs by some settings, in the order in which they come."""
    if not keys:
        yield {}, runs
        return
    for values, its in runs.groupby([*keys], dropna=False, sort=False):
        yield dict(zip(keys, values, strict=True)), its


def _place(candidate: Candidate) -> float:
    return math.inf if candidate.lacking else -candidate.value


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def named(settings: Mapping[str, Any]) -> str:
    """Spell settings as the command line takes them."""
    return " ".join(f"{key}={spelled_value(value)}" for key, value in settings.items())


def spelled_value(value: Any) -> str:
    """Spell a value of a table: whole numbers as such, lists in brackets, nothing as null."""
    if isinstance(value, tuple):
        return f"[{','.join(map(spelled_value, value))}]"
    if value is None or value != value:
        return "null"
    if isinstance(value, float) and value.is_integer() and abs(value) < _WRITTEN_OUT:
        return str(int(value))
    return str(value).lower() if str(value) in ("True", "False") else str(value)
