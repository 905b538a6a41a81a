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
import sys
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from byzshield_exp.assignments import Assignment
from byzshield_exp.binding import construct
from byzshield_exp.commands import config as configuration
from byzshield_exp.distortion import report
from byzshield_exp.distortion.worst_case import TIME_LIMIT_S
from byzshield_exp.errors import ConfigError

_LONGEST_RANGE = 10_000
_OWN = {"q": "3", "format": "table", "time_limit": str(TIME_LIMIT_S), "plot": ""}


def main(arguments: list[str]) -> None:
    """Print what was asked for; exits with 2 and one line for bad input."""
    try:
        print(answer(arguments))
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        is_ours = isinstance(error, ValueError) and not isinstance(error, OmegaConfBaseException)
        line = str(error) if is_ours else configuration.one_line(error)
        print(f"byzshield_exp: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def answer(arguments: list[str]) -> str:
    """The text for a command line.

    Raises:
        ConfigError: for bad input; Hydra's errors for an approach or key that there is not.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        return __doc__ or ""
    command = arguments[0] if "=" not in arguments[0] else ""
    if command not in ("", "recommend", "tables"):
        raise ConfigError(f"{command}: no such command, there are recommend and tables")
    given = arguments[1:] if command else arguments
    if command == "tables":
        if given:
            raise ConfigError(f"{given[0]}: tables takes no arguments")
        return report.papers()
    own = {**_OWN, **dict(_key(argument) for argument in given if _key(argument)[0] in _OWN)}
    overrides = [argument for argument in given if _key(argument)[0] not in _OWN]
    limit, form = _seconds(own["time_limit"]), own["format"]
    if form not in report.FORMATS:
        raise ConfigError(f"format={form} must be one of {', '.join(report.FORMATS)}")
    if command == "recommend":
        sizes, q = _compose(overrides), _numbers(own["q"])
        unused = [key for key in ("format", "plot") if own[key] != _OWN[key]]
        if len(q) > 1 or unused:
            raise ConfigError(f"recommend prints a table for one q, got {' '.join(given)}")
        if sizes["K"] < 1 or sizes["r"] < 1:
            raise ConfigError(f"K={sizes['K']} r={sizes['r']} must be at least 1")
        return report.recommend(sizes["K"], sizes["r"], q[0], limit)
    series = {
        name: [report.describe(assignment, q, limit) for q in _numbers(own["q"])]
        for name, assignment in _placements(overrides).items()
    }
    if own["plot"]:
        report.plot(series, own["plot"])
    several = len(series) > 1
    rows = [
        {"approach": name, **row} if several else row for name in series for row in series[name]
    ]
    return report.spell(rows, form)


def _key(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals:
        raise ConfigError(f"{argument}: arguments are key=value")
    return key, value


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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"time_limit={text} must be a finite number of seconds above 0")
    return seconds


def _compose(overrides: list[str]) -> dict[str, Any]:
    configuration.register()
    with initialize_config_dir(configuration.conf_dir(), version_base="1.3"):
        cfg = compose("config", overrides)
    approach = OmegaConf.to_container(cfg.approach, resolve=True, throw_on_missing=True)
    return {"K": cfg.K, "r": cfg.r, "approach": approach}


def _placements(overrides: list[str]) -> dict[str, Assignment]:
    names = next((_key(o)[1] for o in overrides if _key(o)[0] == "approach"), "mols")
    others = [o for o in overrides if _key(o)[0] != "approach"]
    return {
        name: construct("approach", _compose([*others, f"approach={name}"])["approach"])
        for name in names.split(",")
    }
