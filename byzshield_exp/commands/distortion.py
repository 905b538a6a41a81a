"""``byzshield distortion``: how bad q liars can be, and which placement to use.

    byzshield distortion approach=mols K=35 r=5 q=3-13
    byzshield distortion approach=mols,steiner K=15 r=3 q=2-7 plot=eps.png
    byzshield distortion recommend K=25 r=5 q=5
    byzshield distortion tables

``q`` is a number, a list [3,4,5] or a range 3-13. ``format`` is table, json, csv or markdown.
``time_limit`` (seconds for each q, default 60) ends a search with a proven interval. Options of a
placement are its keys: approach.m=10.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from byzshield_exp.commands.arguments import (
    asks_for_help,
    check_key,
    near,
    read_keys,
    seconds,
    spelled,
    split_keys,
)
from byzshield_exp.commands.choices import paths
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import aligned

_COMMANDS = ("recommend", "tables")
_KEYS = {"q": (), "format": ("table", "json", "csv", "markdown"), "time_limit": (), "plot": ()}
_PLACEMENT = ("approach", "K", "r")  # Hydra composes these, as it does an approach's keys
_LONGEST_RANGE = 10_000
_LEGEND = {
    "f, l, r": "files of the placement, files of a worker, workers of a file",
    "c_max": "files that the worst q workers win; [found, bound] where the search was ended",
    "eps_hat": "c_max / f",
    "baseline": "eps_hat without replicas: q / K",
    "FRC": "eps_hat of fractional repetition at this K and r; empty: there is none",
    "gamma": "ByzShield's bound on c_max, in files; empty: not for this placement",
    "any, random": "no placement has an eps_hat below this; q random workers win it on average",
    "s": "seconds of the search",
    "a worst set": "q workers that win c_max files, counted from 0",
}


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    keys = spelled({"approach": tuple(sorted(paths("approach"))), "K": (), "r": (), **_KEYS})
    return keys if before else [*_COMMANDS, *keys]


@exit_codes()
def main(arguments: list[str]) -> None:
    """Print what was asked for.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    try:
        print(answer(arguments))
    except ConfigError:
        raise
    except ValueError as error:  # raised by a placement or its search
        raise ConfigError(str(error)) from error


def answer(arguments: list[str]) -> str:
    """Return the text that answers a command line.

    Raises:
        ConfigError: for bad input.
        ValueError: for numbers that a placement or its search refuses.
    """
    if not arguments or asks_for_help(arguments):
        return __doc__ or ""
    command = arguments[0] if "=" not in arguments[0] else ""
    if command not in ("", *_COMMANDS):
        known = " and ".join(_COMMANDS)
        raise ConfigError(
            f"{command}: no such command, there are {known}{near(command, _COMMANDS)}"
        )
    given = arguments[1:] if command else arguments
    if command == "tables":
        return _tables(given)
    own, overrides = _split_overrides(split_keys(given))
    return _recommend(own, overrides) if command else _report(own, overrides)


def _split_overrides(given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Separate the keys of this verb from those of the configuration."""
    known = (*_PLACEMENT, *_KEYS)
    for key in given:
        if not key.lstrip("+").startswith("approach."):
            check_key(key, known)
    own = read_keys((f"{key}={value}" for key, value in given.items() if key in _KEYS), _KEYS)
    return own, {key: value for key, value in given.items() if key not in _KEYS}


def _tables(given: Sequence[str]) -> str:
    from byzshield_exp.distortion.side_by_side import papers

    if given:
        raise ConfigError(f"{given[0]}: tables takes no arguments")
    return f"{papers()}{_legend('c_max', 'eps_hat', 'baseline', 'FRC', 'gamma')}"


def _legend(*columns: str) -> str:
    """Explain columns of a table, below it."""
    lines = aligned([(name, _LEGEND[name]) for name in columns])
    return "\n".join(["", "", *lines])


def _recommend(own: Mapping[str, str], overrides: Mapping[str, str]) -> str:
    numbers, limit = _numbers(own.get("q", "3")), _time_limit(own)
    unused = [key for key in ("format", "plot") if key in own]
    if len(numbers) > 1 or unused:
        said = " ".join(f"{key}={value}" for key, value in own.items())
        raise ConfigError(f"recommend prints a table for one q, got {said}")
    from byzshield_exp.commands.placements import sizes
    from byzshield_exp.distortion import report

    num_workers, replication = sizes(overrides)
    if num_workers < 1 or replication < 1:
        raise ConfigError(f"K={num_workers} r={replication} must be at least 1")
    table = report.recommend(num_workers, replication, numbers[0], limit)
    return f"{table}{_legend('f, l, r', 'c_max', 'eps_hat')}"


def _report(own: Mapping[str, str], overrides: Mapping[str, str]) -> str:
    numbers, limit = _numbers(own.get("q", "3")), _time_limit(own)
    from byzshield_exp.commands.placements import placements
    from byzshield_exp.distortion import report

    series = {
        name: [report.describe(assignment, q, limit) for q in numbers]
        for name, assignment in placements(overrides).items()
    }
    if "plot" in own:
        _plot(series, own["plot"])
    several = len(series) > 1
    rows = [
        {"approach": name, **row} if several else row for name in series for row in series[name]
    ]
    form = own.get("format", "table")
    legend = _legend(*list(_LEGEND)[1:]) if form == "table" else ""
    return report.spell(rows, form) + legend


def _plot(series: Mapping[str, Sequence[dict[str, Any]]], path: str) -> None:
    try:
        from byzshield_exp.report.worst_cases import plot
    except ImportError as error:
        raise ConfigError(
            f"plot needs {error.name}: pip install 'byzshield_exp[report]'"
        ) from error
    plot(series, path)


def _time_limit(own: Mapping[str, str]) -> float:
    return seconds("time_limit", own.get("time_limit", "60"))


def _numbers(text: str) -> list[int]:
    if found := re.fullmatch(r"(\d+)-(\d+)", text):
        low, high = int(found[1]), int(found[2])
        if high - low > _LONGEST_RANGE:
            raise ConfigError(f"q={text} is a range of more than {_LONGEST_RANGE} numbers")
        numbers = list(range(low, high + 1))
    else:
        parts = [part.strip() for part in text.strip("[]").split(",")]
        if not all(re.fullmatch(r"-?\d+", part) for part in parts):
            raise ConfigError(f"q={text} must be a number, a list [3,4,5] or a range 3-13")
        numbers = [int(part) for part in parts]
    if not numbers:
        raise ConfigError(f"q={text} is an empty range")
    return numbers
