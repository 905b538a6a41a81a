"""Tell what became of runs: the main table, and every run that is not simply done."""

import csv
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from byzshield_exp.report.liars import with_shares
from byzshield_exp.report.study import Study
from byzshield_exp.report.words import labelled
from byzshield_exp.results.folder import is_free

_SWEEP = "sweep.csv"


def main_table(study: Study) -> pd.DataFrame:
    """Return a row a setting: the final value, how many runs have one of how many, and costs."""
    runs, what = study.runs, study.measure
    keys = [one.column for one in study.dimensions] or ["@all"]
    runs = runs.assign(**{"@all": 0})
    values = (
        runs[what.name] / what.scale if what.name in runs else pd.Series(float("nan"), runs.index)
    )
    grouped = runs.assign(value=values).groupby(keys, sort=True)
    table = grouped["value"].agg(["mean", "min", "max", "count"])
    table.columns = pd.Index([what.axis, "lowest", "highest", "n"])
    table["of"] = grouped.size()
    extra = {"epsilon_hat": "worst share of files", "seconds_per_step": "s a step"}
    for column, title in extra.items():
        if column in runs and runs[column].notna().any():
            table[title] = grouped[column].mean()
    shares = with_shares(study)
    if len(shares.runs):
        realised = shares.steps.groupby("folder")["epsilon_realised"].mean()
        found = runs["folder"].map(realised)
        table["realised share of files"] = found.groupby([runs[key] for key in keys]).mean()
    table = table.reset_index()
    for one in study.dimensions:
        table[one.column] = table[one.column].map(dict(enumerate(one.short)))
    return table.rename(columns={one.column: one.title for one in study.dimensions}).drop(
        columns="@all", errors="ignore"
    )


def incomplete(study: Study, folders: Iterable[Path]) -> pd.DataFrame:
    """Return ``run``, ``state`` and ``reason`` of all runs that are not done or lack the value.

    Args:
        study: all runs.
        folders: those given; points that a sweep could not run are in their ``sweep.csv``.
    """
    rows = []
    is_twice = study.runs["name"].duplicated(keep=False)
    names = study.runs["name"].where(~is_twice, study.runs["folder"])
    for name, run in zip(names, study.runs.to_dict("records"), strict=True):
        done = f"{run['steps_done']} of {run.get('steps', '?')} steps"
        lacks = study.measure.name in run and run[study.measure.name] != run[study.measure.name]
        if run["state"] == "diverged":
            reason = f"NaN or Inf at step {run['diverged_at_step']:.0f}; its last value counts"
        elif run["state"] != "done":
            reason = ", ".join(filter(None, [done, run["error"]]))
        elif lacks:
            reason = f"has no {study.measure.title}"
        else:
            continue
        rows.append({"run": name, "state": run["state"], "reason": reason})
    places = {*folders, *(Path(folder).parent for folder in study.runs["folder"])}
    places = {place.resolve() for place in places}
    rows += [row for place in sorted(places) for row in _invalid(place)]
    return pd.DataFrame(rows, columns=["run", "state", "reason"])


def _invalid(folder: Path) -> list[dict[str, str]]:
    with suppress(OSError, csv.Error, UnicodeDecodeError), (folder / _SWEEP).open() as file:
        known = ("name", "state", "error", "attempts", "seconds")
        return [
            {
                "run": ",".join(
                    f"{key}={value}"
                    for key, value in row.items()
                    if value and key not in known and not is_free(key)
                ),
                "state": "invalid",
                "reason": row.get("error") or "",
            }
            for row in csv.DictReader(file)
            if row.get("state") == "invalid"
        ]
    return []


def counted(study: Study, left: pd.DataFrame) -> str:
    """Count the runs by state in a line."""
    states = study.runs["state"].value_counts().to_dict()
    states |= {"invalid": count} if (count := int((left["state"] == "invalid").sum())) else {}
    total = sum(states.values())
    done = f"{states.pop('done', 0)} of {total} runs are done"
    parts = [done, *(f"{count} {state}" for state, count in states.items())]
    links = int(study.runs["same_as"].notna().sum()) if "same_as" in study.runs else 0
    if links:
        parts.append(f"{links} are links to a run that cannot differ")
    return ", ".join(parts)


def in_common(study: Study) -> str:
    """Name the settings that all runs share, in words."""
    shown = ("approach", "aggregator", "attack", "K", "q", "r", "dataset", "network",
             "batch_size", "steps", "optimizer.lr", "optimizer.momentum")  # fmt: skip
    said = [
        labelled(key, study.runs[key].iloc[0])
        for key in shown
        if key in study.runs and study.runs[key].map(repr).nunique() == 1
        if key != "r" or study.runs.get("approach.replication", pd.Series([None])).notna().all()
    ]
    return ", ".join(filter(None, said))
