"""Write the page of all results: what was run where, the tables, and why they differ."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from byzshield_exp.clusters.fingerprint import cpu_model
from byzshield_exp.commands.reproduce.comparison import Comparison
from byzshield_exp.commands.reproduce.spelling import MEASURES, spelled
from byzshield_exp.distortion.papers import PrintedTable
from byzshield_exp.distortion.side_by_side import papers
from byzshield_exp.launch.manifest import duration

Shown = dict[str, list[tuple[str, str]]]  # by paper, captions and paths of pictures


def results_page(
    command: str,
    scale: str,
    tables: Sequence[PrintedTable],
    compared: Sequence[Comparison],
    pictures: Shown,
) -> str:
    """Return the page as Markdown.

    Args:
        command: that made it.
        scale: of the runs.
        tables: of ByzShield.
        compared: figures.
        pictures: to show, with paths as seen from the page.
    """
    parts = ["# Results beside the papers'", _made(command, compared)]
    if tables:
        parts += ["## Worst cases", _TABLES, papers(tables, markdown=True)]
    parts += [_HOW] if compared else []
    for group, members in groupby(compared, key=lambda one: one.figure.group):
        parts += _of_paper(scale, list(members), pictures.get(group, []))
    return "\n\n".join(parts)


_HOW = (
    "Ours are means over the seeds (lowest to highest). Two curves are apart where all seeds of "
    "one are at least a percentage point above all of the other."
)
_TABLES = (
    "How many files the worst q workers win: tables of the ByzShield paper, as printed and as "
    "computed. Nothing is trained for these; [how they are computed](distortion.md)."
)


def _made(command: str, compared: Sequence[Comparison]) -> str:
    """Say how the page was made, on which machine and from which runs."""
    runs = {run.folder: run for one in compared for run in one.runs if run.same_as is None}
    seconds = sum(run.seconds or 0 for run in runs.values())
    seeds = sorted({seed for one in compared for seed in one.seeds})
    used = {f"{name} {said}" for run in runs.values() for name, said in run.versions.items()}
    lines = [
        f"Written on {datetime.now(UTC):%Y-%m-%d} at commit {_commit()}, on {cpu_model()} with "
        f"{os.cpu_count()} cores, by",
        "",
        "```sh",
        command,
        "```",
        "",
    ]
    if runs:
        lines += [
            f"{len(runs)} runs were computed, seeds {', '.join(map(str, seeds))}, "
            f"{duration(seconds)} one after the other, with {', '.join(sorted(used))}."
        ]
    return "\n".join(lines)


def _commit() -> str:
    """Return the commit of the checkout that the package lies in, or else its version."""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=, with changes"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return said.stdout.strip()
    return f"unknown (version {version('byzshield_exp')})"


def _of_paper(
    scale: str, compared: Sequence[Comparison], pictures: Sequence[tuple[str, str]]
) -> Iterator[str]:
    first = compared[0].figure
    yield f"## {first.paper}"
    yield f"Published values: {first.obtained}."
    measures = {name: text for one in compared for name, text in one.figure.measures.items()}
    said = "; ".join(f"{MEASURES[name]}: {text}" for name, text in measures.items())
    yield f"Measures in the paper: {said}."
    yield from first.differs(scale, of_all=True)
    for caption, path in pictures:
        yield f"![{caption.partition('. ')[0]}]({path})\n\n{caption}"
    for comparison in compared:
        yield f"### {comparison.figure.title}"
        yield spelled(comparison, markdown=True)
        yield from comparison.figure.differs(scale)
