"""Load runs as pandas tables: one row a run, and one row a run and step."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from byzshield_exp.errors import ConfigError
from byzshield_exp.results.folder import differing_keys
from byzshield_exp.results.outcome import ACCURACIES, read_outcome
from byzshield_exp.results.recorder import flatten, read_metrics

if TYPE_CHECKING:
    from pandas import DataFrame

_CONFIG, _JOB = "config.yaml", "job.json"
_Yaml = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built


class Runs(NamedTuple):
    """Runs as two tables, whose column ``folder`` is the run's path.

    Attributes:
        runs: one row a run, in whatever state: ``folder``, ``name``, what
            :func:`~byzshield_exp.results.outcome.read_outcome` returns, and the settings by the
            names that the command line has for them: ``attack``, ``attack.z``, ``q``, ``steps``.
        steps: one row a run and step, with the entries of ``metrics.jsonl``: ``seconds.vote``.
        varied: the settings of ``runs`` that differ, without those that another choice brings.
    """

    runs: "DataFrame"
    steps: "DataFrame"
    varied: list[str]


def load(folders: str | Path | Sequence[str | Path]) -> Runs:
    """Load all runs at or below some folders, finished or not.

    Lists become tuples, which can be grouped by.

    Args:
        folders: of runs, or with runs below them at any depth.

    Raises:
        ConfigError: if there is no run at or below one of them, or it cannot be read.
        ImportError: if pandas is missing.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError("load needs pandas: pip install 'byzshield_exp[report]'") from error
    given = [folders] if isinstance(folders, str | Path) else folders
    found = {path.resolve(): path for folder in given for path in _runs_below(Path(folder))}
    runs, steps, configs = [], [], []
    for path in found.values():
        config, records, outcome = _read_config(path), read_metrics(path), read_outcome(path)
        head = {"folder": str(path), "name": path.resolve().name, "curve": None}
        done = {"steps_done": records[-1]["step"] if records else 0}
        runs.append(_row(head | done | outcome | _settings(config)))
        steps += [_row({"folder": str(path)} | record) for record in records]
        configs += [config] if config else []
    numbers = dict.fromkeys([*ACCURACIES, "seconds"], float)  # where all are missing, NaN too
    columns = dict.fromkeys(["folder", "step", *(key for row in steps for key in row)])
    return Runs(
        DataFrame(runs).astype(numbers), DataFrame(steps, columns=[*columns]), _varied(configs)
    )


def _runs_below(top: Path) -> Iterator[Path]:
    is_empty = True
    for folder, inner, files in os.walk(top):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if {_CONFIG, _JOB} & {*files}:
            is_empty = False
            inner.clear()
            yield Path(folder)
    if is_empty:
        raise ConfigError(f"{top} has no run: no {_CONFIG} or {_JOB} in it or below")


def _read_config(run: Path) -> dict[str, Any]:
    """Read a run's configuration; empty if it cannot be read."""
    with suppress(OSError, ValueError, TypeError, yaml.YAMLError):
        return dict(yaml.load((run / _CONFIG).read_text(), _Yaml))
    with suppress(OSError, ValueError, KeyError):  # a run of a sweep that has not begun
        return dict(json.loads((run / _JOB).read_text())["config"])
    return {}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by their names on the command line; a group's is its choice."""
    return {**config.get("choices", {}), **flatten({**config, "choices": {}})}


def _row(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in flatten(entries).items()
    }


def _varied(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the settings that differ, except where the choice of their group decides them."""
    settings = [_settings(config) for config in configs]
    differing = {key for config in configs for key in differing_keys(configs[0], config)}
    if len({row["steps"] for row in settings}) > 1:
        differing.add("steps")
    differing = {key.removeprefix("choices.") for key in differing}
    return [
        key
        for key in dict.fromkeys(key for row in settings for key in row)
        if key in differing and not _is_implied(key, settings)
    ]


def _is_implied(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    group, dot, _ = key.partition(".")
    pairs = {(repr(row.get(group)), repr(row.get(key))) for row in settings}
    return bool(dot) and len(pairs) == len({choice for choice, _ in pairs})
