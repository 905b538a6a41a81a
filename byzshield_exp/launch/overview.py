"""Lay out what came of a sweep: a line per setting with its accuracy over the seeds, the best."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from byzshield_exp.notices import aligned
from byzshield_exp.results.outcome import ACCURACIES

Row = Mapping[str, Any]
_THREATS = ("attack", "adversary", "cheat", "q")  # settings that no defender chooses


def overview(rows: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """Lay out the runs of a sweep as lines of text.

    Args:
        rows: one per run: its settings by key, and what
            :func:`~byzshield_exp.results.outcome.read_outcome` returns.
        keys: the settings that may have been varied.

    Returns:
        A table with a line for the runs that differ in nothing but the seed, the best choice, and
        how many runs are done.
    """
    varied = _varied(rows, keys)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_spelled(row[key]) for key in varied), []).append(row)
    measured = [name for name in ACCURACIES if _values(rows, name)]
    table = [[*varied, *map(_worded, measured), "state", "seconds a run"]]
    for setting, runs in groups.items():
        accuracies = [_mean_and_range(_values(runs, name)) for name in measured]
        took = _values([run for run in runs if not run.get("same_as")], "seconds")
        seconds = f"{mean(took):.1f}" if took else "-"
        table.append([*setting, *accuracies, _states(runs), seconds])
    several = measured if len(groups) > 1 else []
    best = [line for name in several for line in _best(groups, varied, name)]
    return [*aligned(table), *best, _ends(rows)]


def _varied(rows: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """Name the settings that differ, but for the seed and what a curve's name stands for."""
    values = {key: [_spelled(row[key]) for row in rows] for key in keys}
    curves = values.get("curve", [])
    is_of_curve = {
        key: key != "curve" and len({*zip(curves, values[key], strict=False)}) == len({*curves})
        for key in keys
    }
    several = [key for key in keys if key != "seed" and len({*values[key]}) > 1]
    return [key for key in several if not (len({*curves}) > 1 and is_of_curve[key])]


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _worded(name: str) -> str:
    return name.replace("_", " ")


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def _mean_and_range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    span = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
    return f"{mean(values):.4f}{span}"


def _states(rows: Sequence[Row]) -> str:
    counts = Counter(f"{row['state']}{' (link)' * bool(row.get('same_as'))}" for row in rows)
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _best(
    groups: Mapping[tuple[str, ...], Sequence[Row]], varied: list[str], name: str
) -> list[str]:
    """Name what a defender would choose: what has the highest accuracy in its worst case.

    The worst case is over the attack, who lies and how many. A choice with a case that has no
    accuracy is none. Where these alone were varied, their worst is named.
    """
    means = {
        setting: mean(values) for setting, runs in groups.items() if (values := _values(runs, name))
    }
    threats = [key for key in varied if re.split(r"[.@]", key)[0] in _THREATS]
    if threats == varied:
        return [_named("lowest", _worded(name), min(means.values()), means, varied)]
    choices = [key for key in varied if key not in threats]
    cases: dict[tuple[str, ...], list[float | None]] = {}
    for setting in groups:
        chosen = tuple(value for key, value in zip(varied, setting, strict=True) if key in choices)
        cases.setdefault(chosen, []).append(means.get(setting))
    whole = {
        chosen: min(found)
        for chosen, values in cases.items()
        if len(found := [value for value in values if value is not None]) == len(values)
    }
    if not whole:
        return []
    over = f" in the worst case over {' and '.join(threats)}" if threats else ""
    return [_named("best", _worded(name) + over, max(whole.values()), whole, choices)]


def _named(
    which: str, what: str, value: float, values: Mapping[tuple[str, ...], float], keys: list[str]
) -> str:
    first, *others = (setting for setting, found in values.items() if found == value)
    named = " ".join(f"{key}={chosen}" for key, chosen in zip(keys, first, strict=True))
    shared = f", and {len(others)} more with the same" if others else ""
    return f"{which} {what}: {value:.4f} with {named}{shared}"


def _ends(rows: Sequence[Row]) -> str:
    """Count the runs by state, and say why the first of those with an error has it."""
    counts = Counter(row["state"] for row in rows)
    parts = [f"{counts.pop('done', 0)} of {len(rows)} done"]
    for state, count in counts.items():
        reasons = {row["error"]: None for row in rows if row["state"] == state and row.get("error")}
        more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        parts.append(f"{count} {state}" + (f" ({next(iter(reasons))}{more})" if reasons else ""))
    same = sum(bool(row.get("same_as")) for row in rows)
    linked = f"; {same} of them cannot differ from another and link to it" if same else ""
    return ", ".join(parts) + linked
