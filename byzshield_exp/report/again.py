"""Spell the commands that do chosen settings again."""

import shlex
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from byzshield_exp.report.best import SEED, Candidate, Criterion, spelled_value

_OWN = (
    SEED,
    "output_dir",
    "steps",
    "epochs",
    "dataset.num_validation",
)  # what the new command says itself


def commands_again(
    candidate: Candidate, what: Criterion, seeds: int, steps: int | None, output_dir: str
) -> list[str]:
    """Return commands that run a candidate under all that it was judged by, on the test set.

    There are none if no run has kept the command that started it.

    Args:
        candidate: what was chosen.
        what: by what it was.
        seeds: how many; none of them was among those of the choice.
        steps: of the runs; None: as many as they had.
        output_dir: the folder of their results.
    """
    runs = [run for run in candidate.runs.to_dict("records") if _has_command(run)]
    if not runs:
        return []
    first = 1 + max(int(run[SEED]) for run in runs)
    keys = [key for key in what.points if key != SEED]
    by_rest: dict[tuple[tuple[str, ...], ...], list[tuple[str, ...]]] = {}
    for run in runs:
        swept = [key for key in keys if not _is_own(key, run[key])]
        point = tuple(spelled_value(run[key]) for key in swept)
        typed = tuple(f"+{key}" if f"+{key}" in _typed(run) else key for key in swept)
        points = by_rest.setdefault((typed, _rest(run, swept)), [])
        if point not in points:
            points.append(point)
    length = steps or int(runs[0]["steps"])
    end = [f"seed=range({first},{first + seeds})", f"steps={length}", "dataset.num_validation=0"]
    return [
        shlex.join(["byzshield", "run", "-m", *rest, *some, *end, f"output_dir={output_dir}"])
        for (typed, rest), points in by_rest.items()
        for some in _swept(typed, points)
    ]


def _has_command(run: Mapping[str, Any]) -> bool:
    return isinstance(run.get("command"), str)


def _is_own(key: str, value: Any) -> bool:
    """Whether a group's choice is called by its ``_target_``: it is typed in several words."""
    return "." not in key and isinstance(value, str) and "." in value


def _words(run: Mapping[str, Any]) -> list[str]:
    """Return the arguments that a run was started with."""
    words = shlex.split(str(run["command"]))
    return words[words.index("byzshield_exp" if words[0] == "torchrun" else "run") + 1 :]


def _typed(run: Mapping[str, Any]) -> set[str]:
    return {word.partition("=")[0] for word in _words(run)}


def _rest(run: Mapping[str, Any], swept: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments of a run but those that the new command says itself."""
    left_out = (*_OWN, *swept, "histograms", "profile")
    return tuple(word for word in _words(run) if word.partition("=")[0].lstrip("+") not in left_out)


def _swept(keys: Sequence[str], points: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """Return overrides that sweep the points: one list if they are a grid, else one each."""
    columns = [list(dict.fromkeys(column)) for column in zip(*points, strict=True)]
    if len(list(product(*columns))) == len(points):
        return [[f"{key}={','.join(its)}" for key, its in zip(keys, columns, strict=True)]]
    return [[f"{key}={value}" for key, value in zip(keys, point, strict=True)] for point in points]
