"""What is known about a placement, per q: rows for people and programs."""

import csv
import io
import json
import math
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from byzshield_exp.assignments import (
    Assignment,
    affine_plane,
    baseline,
    fractional_repetition,
    mols,
    projective_plane,
    ramanujan_one,
    ramanujan_two,
    random,
    steiner,
    subsets,
)
from byzshield_exp.distortion import bounds
from byzshield_exp.distortion.worst_case import TIME_LIMIT_S, worst_case
from byzshield_exp.notices import aligned

_SAY_AFTER_S = 2.0  # a search that takes longer says so, on standard error
FORMATS = ("table", "json", "csv", "markdown")
Row = dict[str, Any]


def describe(assignment: Assignment, num_byzantine: int, time_limit: float = TIME_LIMIT_S) -> Row:
    """Collect all that is known for one q.

    Returns:
        ``q``, ``c_max`` (files; the best set found where not exact), ``upper_bound`` (files),
        ``exact``, ``epsilon_hat`` (``upper_bound / f``), ``epsilon_baseline`` (q / K),
        ``epsilon_frc`` (fractional repetition at this r), ``gamma`` (files, or None),
        ``lower_bound_any`` (of every placement, a share; also the share a random set wins on
        average), ``workers`` (a worst set) and ``seconds``.

    Raises:
        ValueError: if q or the time limit is out of range.
    """
    line = f"K={assignment.num_workers} q={num_byzantine}: searching, for {time_limit:g} s at most"
    patience = threading.Timer(_SAY_AFTER_S, lambda: print(line, file=sys.stderr, flush=True))
    patience.start()
    try:
        worst = worst_case(assignment, num_byzantine, time_limit)
    finally:
        patience.cancel()
    return {
        "q": num_byzantine,
        "c_max": worst.count,
        "upper_bound": worst.upper_bound,
        "exact": worst.exact,
        "epsilon_hat": worst.upper_bound / assignment.num_files,
        "epsilon_baseline": num_byzantine / assignment.num_workers,
        "epsilon_frc": epsilon_frc(assignment, num_byzantine),
        "gamma": bounds.gamma(assignment, num_byzantine),
        "lower_bound_any": bounds.random_share(assignment, num_byzantine),
        "workers": list(worst.workers),
        "seconds": worst.seconds,
    }


def epsilon_frc(assignment: Assignment, num_byzantine: int) -> float | None:
    """The worst case of fractional repetition at this K and r: ``floor(q / t) r / K``.

    Source: ByzShield, MLSys 2021, Section 5.3.
    """
    if assignment.num_workers % assignment.replication:
        return None  # there is no such placement
    groups = num_byzantine // assignment.majority
    return min(1.0, groups * assignment.replication / assignment.num_workers)


def spell(rows: Sequence[Row], form: str) -> str:
    """Format rows as a text table, Markdown, CSV or JSON.

    Raises:
        ValueError: for another form.
    """
    if form == "json":
        return json.dumps(list(rows), indent=1)
    if form == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"workers": " ".join(map(str, row["workers"]))} for row in rows)
        return out.getvalue().rstrip()
    if form not in FORMATS:
        raise ValueError(f"format={form} must be one of {', '.join(FORMATS)}")
    named = ["approach"] if "approach" in rows[0] else []
    head = [
        *named,
        "q",
        "c_max",
        "eps_hat",
        "baseline",
        "FRC",
        "gamma",
        "any, random",
        "s",
        "a worst set",
    ]
    cells = [[row[name] for name in named] + _cells(row) for row in rows]
    return columns(head, cells, form == "markdown")


def _cells(row: Row) -> list[str]:
    count = str(row["c_max"]) if row["exact"] else f"[{row['c_max']}, {row['upper_bound']}]"
    return [
        str(row["q"]),
        count,
        f"{row['epsilon_hat']:.3f}" if row["exact"] else f"<= {_up(row['epsilon_hat']):.3f}",
        f"{row['epsilon_baseline']:.3f}",
        "" if row["epsilon_frc"] is None else f"{row['epsilon_frc']:.3f}",
        "" if row["gamma"] is None else f"{row['gamma']:.2f}",
        f"{row['lower_bound_any']:.4f}",
        f"{row['seconds']:.2f}",
        " ".join(map(str, row["workers"])),
    ]


def _up(bound: float) -> float:
    """Round up to three digits, so that an upper bound still holds."""
    return math.ceil(bound * 1000 - 1e-9) / 1000


def columns(head: Sequence[str], cells: Iterable[Sequence[str]], markdown: bool = False) -> str:
    """Format a table with aligned columns."""
    lines = [list(head), *map(list, cells)]
    if not markdown:
        return "\n".join(aligned(lines))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    rule = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(line)} |" for line in [texts[0], rule, *texts[1:]])


@dataclass(frozen=True)
class Offer:
    """A placement that exists at a K and r, and what q liars can do to it."""

    approach: str
    assignment: Assignment
    row: Row


def offers(num_workers: int, replication: int, q: int, time_limit: float) -> list[Offer]:
    """The placements available at K and r, least damage first, then fewest messages.

    Raises:
        ValueError: if q is out of range.
    """
    makers: dict[str, Callable[[], Assignment]] = {
        "mols": lambda: mols(num_workers, replication),
        "ramanujan_one": lambda: ramanujan_one(num_workers, replication),
        "ramanujan_two": lambda: ramanujan_two(num_workers, replication),
        "fractional_repetition": lambda: fractional_repetition(num_workers, replication),
        "affine_plane": lambda: affine_plane(num_workers, replication),
        "projective_plane": lambda: projective_plane(num_workers, replication),
        "steiner": lambda: steiner(num_workers, replication),
        "subsets": lambda: subsets(num_workers, replication),
        "random": lambda: random(num_workers, replication),
        "baseline": lambda: baseline(num_workers),
    }
    found = []
    for approach, make in makers.items():
        try:
            assignment = make()
        except ValueError:
            continue  # there is no such placement at this size
        found.append(Offer(approach, assignment, describe(assignment, q, time_limit)))
    return sorted(found, key=lambda offer: (offer.row["epsilon_hat"], offer.assignment.load))


def recommend(num_workers: int, replication: int, q: int, time_limit: float) -> str:
    """The placements available at K and r as a table, the best one marked.

    Raises:
        ValueError: if q is out of range.
    """
    found = offers(num_workers, replication, q, time_limit)
    cells = [
        [
            "*" if offer is found[0] else "",
            offer.approach,
            str(offer.assignment.num_files),
            str(offer.assignment.load),
            str(offer.assignment.replication),
            *_cells(offer.row)[1:3],
        ]
        for offer in found
    ]
    head = ["", "approach", "f", "l (messages per worker)", "r", "c_max", "eps_hat"]
    text = columns(head, cells)
    plain = next(offer.row["epsilon_hat"] for offer in found if offer.approach == "baseline")
    worse = [offer.approach for offer in found if offer.row["epsilon_hat"] > plain]
    if worse:
        text += f"\nat q={q} the plain baseline, r=1, is better than {', '.join(worse)}"
    return text
