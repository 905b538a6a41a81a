"""Find out what a set of runs compares: what varied, in whose words, and what is measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from byzshield_exp.report import words
from byzshield_exp.report.words import Measure
from byzshield_exp.results import Runs

DEFENCE, ATTACK, CURVE = "defence", "attack", "curve"
_DEFENCES = ("approach", "protocol", "pre_aggregator", "vote", "aggregator")
_ATTACKS = ("attack", "cheat", "adversary", "poison_statistics")
_SIZES = ("q", "K", "r")
_ADVERSARY = (ATTACK, "q", "adversary", "cheat", "poison_statistics")
_MOST_JOINED = 7  # defences that are one dimension, with a colour each


@dataclass(frozen=True)
class Dimension:
    """Something that differs between runs: one setting, or several that are told together.

    The column ``@name`` of the study's runs has the place of a run's value.

    Attributes:
        name: the setting, or ``defence``, ``attack``, ``curve``.
        short: a name for each value, for an axis: ``3``.
        long: a name for each value that stands alone: ``q = 3``.
        numbers: the values, where all are numbers; else empty.
    """

    name: str
    short: tuple[str, ...]
    long: tuple[str, ...]
    numbers: tuple[float | int, ...] = ()

    @property
    def column(self) -> str:
        """Its column in the study's runs."""
        return f"@{self.name}"

    @property
    def title(self) -> str:
        """Its name on an axis."""
        return words.setting(self.name)

    @property
    def brief(self) -> str:
        """Its name in a title: ``q``."""
        return self.name if self.is_size else self.title

    @property
    def is_adversary(self) -> bool:
        """Whether liars choose it, so that the worst value counts."""
        return self.name.partition(".")[0] in _ADVERSARY

    @property
    def is_size(self) -> bool:
        """Whether it is q, K or r."""
        return self.name in _SIZES and bool(self.numbers)


@dataclass(frozen=True, eq=False)
class Study:
    """Runs, and what they compare.

    Attributes:
        runs: of ``results.load``, with a column for each dimension.
        steps: of ``results.load``.
        dimensions: what tells runs apart; others share a mean.
        measure: what is compared.
        remarks: for the reader, a sentence each.
    """

    runs: pd.DataFrame
    steps: pd.DataFrame
    dimensions: tuple[Dimension, ...]
    measure: Measure
    remarks: tuple[str, ...] = ()

    def named(self, *names: str) -> list[Dimension]:
        """Return the dimensions of these names that are there, in this order."""
        return [one for name in names for one in self.dimensions if one.name == name]

    def restricted(self, dimensions: Iterable[Dimension]) -> "Study":
        """Return the same runs, told apart by fewer dimensions."""
        return replace(self, dimensions=tuple(dimensions))

    def of(self, chosen: pd.Series) -> "Study":
        """Return the study of some runs."""
        return replace(self, runs=self.runs[chosen])

    def labels(self, dimensions: Sequence[Dimension]) -> pd.Series:
        """Name each run by its values of some dimensions."""
        columns = [self.runs[one.column].map(dict(enumerate(one.long))) for one in dimensions]
        if not columns:
            return pd.Series("", index=self.runs.index)
        return columns[0].str.cat(columns[1:], sep=", ")

    def order(self, dimensions: Sequence[Dimension]) -> list[str]:
        """Return the labels that occur, in the order of their values."""
        columns = [one.column for one in dimensions]
        runs = self.runs.sort_values(columns) if columns else self.runs
        return list(dict.fromkeys(self.labels(dimensions)[runs.index]))


def listed(dimensions: Iterable[Dimension]) -> str:
    """Name dimensions in a few words."""
    return " and ".join(one.brief for one in dimensions)


def study_of(found: Runs, measure: Measure, by: Sequence[str] = ()) -> Study:
    """Choose the dimensions of some runs.

    Args:
        found: all runs.
        measure: what is compared.
        by: settings that tell runs apart; empty: all that varied, but for the seed.
    """
    runs = found.runs.copy()
    remarks: list[str] = []
    if by:
        groups: list[tuple[str, tuple[str, ...]]] = [(key, (key,)) for key in by]
        left = [key for key in found.varied if key not in (*by, "seed")]
        if left:
            remarks.append(f"Means are over {', '.join(map(words.setting, left))} too (by=).")
    else:
        keys, implied = _independent(runs, found.varied)
        groups = _grouped(runs, keys)
        implied = [key for key in implied if not any(runs[key].equals(runs[one]) for one in keys)]
        if implied:
            said = ", ".join(map(words.setting, implied))
            remarks.append(f"These differ too, but go with the settings shown: {said}.")
    dimensions = tuple(_dimension(runs, name, keys) for name, keys in groups)
    return Study(runs, found.steps, dimensions, measure, tuple(remarks))


def _independent(runs: pd.DataFrame, varied: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the settings that tell runs apart from those that follow from them."""
    keys = [key for key in varied if key not in ("seed", CURVE)]
    main = [key for key in keys if key in (*_DEFENCES, *_ATTACKS, *_SIZES, "dataset", "network")]
    if CURVE in runs and runs[CURVE].notna().all():
        main = [key for key in ("experiment",) if key in keys] + [CURVE]
        keys = [*main, *(key for key in keys if key not in main)]
    for size in ("r", "K"):  # they often go with the placement
        others = [key for key in main if key != size]
        if size in main and _follows(runs, size, others):
            main = others
    implied = [key for key in keys if key not in main and _follows(runs, key, main)]
    return [key for key in keys if key not in implied], implied


def _follows(runs: pd.DataFrame, key: str, others: Sequence[str]) -> bool:
    """Whether a setting has one value wherever the others are the same."""
    if not others:
        return False
    values = runs[key].map(repr).groupby([runs[other].map(repr) for other in others])
    return bool((values.nunique() == 1).all())


def _grouped(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Join the parts of a defence, unless there are too many combinations, and of an attack."""
    defence = [key for key in keys if key.partition(".")[0] in _DEFENCES]
    attack = [key for key in keys if key.partition(".")[0] in _ATTACKS]
    joins = len(defence) > 1 and len(runs[defence].map(repr).drop_duplicates()) <= _MOST_JOINED
    groups: list[tuple[str, tuple[str, ...]]] = [(CURVE, (CURVE,))] if CURVE in keys else []
    groups += [(DEFENCE, tuple(defence))] if joins else [(key, (key,)) for key in defence]
    groups += [(ATTACK, tuple(attack))] if attack else []
    rest = [key for key in keys if key not in (*defence, *attack, CURVE)]
    rest.sort(key=lambda key: _SIZES.index(key) if key in _SIZES else len(_SIZES))
    return groups + [(key, (key,)) for key in rest]


def _dimension(runs: pd.DataFrame, name: str, keys: Sequence[str]) -> Dimension:
    """Order the values of a dimension, and add its column to the runs."""
    rows = list(runs[list(keys)].itertuples(index=False, name=None))
    values = sorted(dict.fromkeys(rows, 0), key=lambda row: [_rank(part) for part in row])
    distinct = {repr(row): row for row in values}
    places = {text: at for at, text in enumerate(distinct)}
    runs[f"@{name}"] = [places[repr(row)] for row in rows]
    long = [_said(name, keys, row) for row in distinct.values()]
    short = [
        words.value(name, row[0]) if len(keys) == 1 else said
        for said, row in zip(long, distinct.values(), strict=True)
    ]
    numbers = [row[0] for row in distinct.values() if len(row) == 1 and _is_number(row[0])]
    ordered = tuple(numbers) if len(numbers) == len(distinct) else ()
    return Dimension(name, tuple(short), tuple(long), ordered)


def _said(name: str, keys: Sequence[str], row: Sequence[Any]) -> str:
    parts = [words.labelled(key, part) for key, part in zip(keys, row, strict=True)]
    parts = list(filter(None, parts))
    return (" + " if name == DEFENCE else ", ").join(parts) or "none"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _rank(value: Any) -> tuple[int, float, str]:
    """Order numbers by size, before words; none and the undefended come first."""
    if _is_number(value):
        return (1, float(value), "")
    return (0 if value in ("none", "baseline", "mean") else 2, 0.0, str(value))
