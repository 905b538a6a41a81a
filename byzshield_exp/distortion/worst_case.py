"""The worst set of q Byzantine workers, by looking at every set."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations, islice
from math import comb

import numpy as np

from byzshield_exp.assignments import Assignment

MAX_SETS = 5_000_000
_CHUNK = 1 << 15


@dataclass(frozen=True)
class WorstCase:
    """The q workers that distort most files.

    Attributes:
        workers: the lexicographically first worst set, ascending.
        count: ``c_max(q)``, the number of files they win.
    """

    workers: tuple[int, ...]
    count: int


def count_distorted(assignment: Assignment, workers: Iterable[int]) -> int:
    """The number of files of which ``workers`` hold a strict majority, ``floor(r / 2) + 1``."""
    holders = assignment.incidence.numpy()[list(workers)].sum(axis=0)
    return int((holders >= assignment.majority).sum())


def worst_case(assignment: Assignment, num_byzantine: int) -> WorstCase:
    """``c_max(q)``: the largest number of files that ``q`` workers can win, and the first such set.

    Args:
        assignment: any placement.
        num_byzantine: ``q``, ``0 <= q <= K``.

    Raises:
        ValueError: if ``q`` is out of range or there are more than 5 million sets to look at.

    Source: Konstantinidis and Ramamoorthy, "ByzShield", MLSys 2021, Section 3 (they enumerate
    too). For even r a file is won with ``r / 2 + 1`` holders: a tie has no winner here.
    """
    num_workers = assignment.num_workers
    if not 0 <= num_byzantine <= num_workers:
        raise ValueError(f"q={num_byzantine} must lie between 0 and K={num_workers}")
    if comb(num_workers, num_byzantine) > MAX_SETS:
        raise ValueError(
            f"the worst case of q={num_byzantine} among K={num_workers} workers has "
            f"{comb(num_workers, num_byzantine):,} sets to look at, the bound is {MAX_SETS:,}"
        )
    incidence = assignment.incidence.numpy().astype(np.int8)
    best = WorstCase(tuple(range(num_byzantine)), -1)
    for sets in _chunks(num_workers, num_byzantine):
        holders = sum(
            (incidence[sets[:, i]] for i in range(1, num_byzantine)), incidence[sets[:, :1]].sum(1)
        )
        counts = (holders >= assignment.majority).sum(axis=1)
        first = int(counts.argmax())
        if int(counts[first]) > best.count:
            best = WorstCase(tuple(sets[first].tolist()), int(counts[first]))
    return best


def _chunks(num_workers: int, size: int) -> Iterator[np.ndarray]:
    sets = combinations(range(num_workers), size)
    while block := list(islice(sets, _CHUNK)):
        flat = np.fromiter(chain.from_iterable(block), dtype=np.int64, count=len(block) * size)
        yield flat.reshape(len(block), size)
