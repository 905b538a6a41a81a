"""The worst set of q Byzantine workers, with a certificate."""

import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from math import comb
from pathlib import Path

import numpy as np

from byzshield_exp.assignments import Assignment
from byzshield_exp.distortion import bounds, cache

TIME_LIMIT_S = 60.0
_SMALL = 2_000_000  # sets times files; up to it all sets are tried, without loading compiled code
_PREFIX_SIZES = (1, 2, 3, 4)  # workers fixed in a task of the parallel search
_ENOUGH_TASKS = 200
_TOO_MANY_PREFIXES = 100_000
_RESTARTS = 10  # of the local search, 20 times over at most
_SHARE_OF_TIME = 0.2  # that the local search may take


@dataclass(frozen=True)
class WorstCase:
    """What q workers can win under a placement.

    Attributes:
        workers: the set that wins most, ascending; the lexicographically first one if ``exact``,
            else the best one found.
        count: the number of files it wins: ``c_max(q)`` if exact.
        upper_bound: no q workers win more; proven.
        exact: whether ``count == upper_bound``.
        seconds: that the search took.
        nodes: of the search tree, 0 where all sets were looked at or bounds sufficed.
        root_bound: the upper bound before any search.
    """

    workers: tuple[int, ...]
    count: int
    upper_bound: int
    exact: bool
    seconds: float = 0.0
    nodes: int = 0
    root_bound: int = 0


def count_distorted(assignment: Assignment, workers: Iterable[int]) -> int:
    """The number of files of which ``workers`` hold a strict majority, ``floor(r / 2) + 1``."""
    holders = assignment.incidence.numpy()[list(workers)].sum(axis=0)
    return int((holders >= assignment.majority).sum())


def worst_case(
    assignment: Assignment,
    num_byzantine: int,
    time_limit: float = TIME_LIMIT_S,
    use_cache: bool = True,
) -> WorstCase:
    """``c_max(q)``: the largest number of files that ``q`` workers can win.

    Branch and bound in lexicographic order over the sets that no known automorphism makes
    smaller, starting from the result of a local search. A node is pruned when its bound shows that
    nothing better is below it. It uses all cores; the answer does not depend on their number. For
    even r a file is won with ``r / 2 + 1`` holders: a tie has no winner here.

    Args:
        assignment: any placement.
        num_byzantine: ``q``, ``0 <= q <= K``.
        time_limit: seconds, > 0, after which the best set found and a proven bound are returned.
        use_cache: read and write results on disk; a search that the limit ended is not kept.

    Raises:
        ValueError: if ``q`` or ``time_limit`` is out of range.

    Source: own search; the quantity is that of ByzShield, MLSys 2021, Section 3.
    """
    num_workers = assignment.num_workers
    if not 0 <= num_byzantine <= num_workers:
        raise ValueError(f"q={num_byzantine} must lie between 0 and K={num_workers}")
    if not 0 < time_limit < float("inf"):
        raise ValueError(f"time_limit={time_limit} must be a finite number of seconds above 0")
    if comb(num_workers, num_byzantine) * assignment.num_files <= _SMALL:
        return _look_at_all(assignment, num_byzantine)
    path = cache.entry_path(assignment, num_byzantine)
    known = _from_cache(path, assignment, num_byzantine) if use_cache else None
    if known is not None:
        return known
    search = _Search(assignment, num_byzantine)
    found = search.run(time_limit)
    if use_cache and search.finished:
        cache.write(path, asdict(found))
    return found


def most_without(assignment: Assignment, num_byzantine: int, absent: Iterable[int]) -> int:
    """The most files that ``q`` workers win when a majority of the replicas that came is enough.

    All sets are tried where that is quick. Otherwise it is an upper bound: a file that is won needs
    a majority of its replicas out of the ``q l`` that liars hold.

    Args:
        assignment: any placement.
        num_byzantine: ``q``; liars are among the workers that came.
        absent: the workers that did not.
    """
    here = sorted(set(range(assignment.num_workers)) - set(absent))
    incidence = assignment.incidence.numpy()[here].astype(np.int16)
    present = incidence.sum(axis=0)
    needed, liars = present // 2 + 1, min(num_byzantine, len(here))
    if comb(len(here), liars) * assignment.num_files <= _SMALL:
        return max(
            int((incidence[list(chosen)].sum(axis=0) >= needed).sum())
            for chosen in combinations(range(len(here)), liars)
        )
    used_up = np.sort(needed[present > 0]).cumsum()
    return int((used_up <= liars * assignment.load).sum())


def _from_cache(path: Path, assignment: Assignment, num_byzantine: int) -> WorstCase | None:
    content = cache.read(path) or {}
    try:
        known = WorstCase(**{**content, "workers": tuple(content["workers"])})
    except (KeyError, TypeError):
        return None
    in_range = all(
        isinstance(worker, int) and 0 <= worker < assignment.num_workers for worker in known.workers
    )
    if not in_range or len(set(known.workers)) != num_byzantine:
        return None
    least, most = bounds.lower_bound(assignment, num_byzantine), known.root_bound
    counted = count_distorted(assignment, known.workers)
    is_right = known.exact and least <= known.count == known.upper_bound == counted <= most
    return known if is_right else None


def _look_at_all(assignment: Assignment, num_byzantine: int) -> WorstCase:
    start = time.perf_counter()
    sets = comb(assignment.num_workers, num_byzantine)
    listed = chain.from_iterable(combinations(range(assignment.num_workers), num_byzantine))
    table = np.fromiter(listed, dtype=np.int64, count=sets * num_byzantine)
    incidence = assignment.incidence.numpy().astype(np.int16)
    holders = np.zeros((sets, assignment.num_files), np.int16)
    for column in table.reshape(sets, num_byzantine).T:
        holders += incidence[column]
    counts = (holders >= assignment.majority).sum(axis=1)
    first = int(counts.argmax())
    workers = tuple(table.reshape(sets, num_byzantine)[first].tolist())
    count = int(counts[first])
    root = bounds.upper_bound(assignment, num_byzantine)
    return WorstCase(workers, count, count, True, time.perf_counter() - start, 0, root)


class _Search:
    """Branch and bound on all cores, with a task for each way to begin."""

    def __init__(self, assignment: Assignment, num_byzantine: int) -> None:
        incidence = assignment.incidence.numpy()
        self.assignment, self.q = assignment, num_byzantine
        self.files = _words(incidence)
        to_come = incidence[::-1].cumsum(axis=0)[::-1]  # holders from a worker on
        to_come = np.vstack([to_come, np.zeros(incidence.shape[1], to_come.dtype)])
        self.after = np.stack([_words(to_come >= d) for d in range(1, assignment.majority + 1)])
        held = incidence.astype(np.float32)  # exact below 2^24; integers have no fast product
        overlap = held @ held.T
        np.fill_diagonal(overlap, 0)
        self.shared = int(overlap.max())
        self.stop = np.zeros(1, np.int64)
        self.lock = threading.Lock()
        self.nodes = 0
        self.finished = True

    def run(self, time_limit: float) -> WorstCase:
        """Search until the end or the time limit."""
        from byzshield_exp.distortion import search  # numba: imported only where it is used

        start = time.perf_counter()
        incumbent: list[int] = []
        for seed in range(20):
            found = search.local_search(
                self.files, self.assignment.majority, self.q, _RESTARTS, seed
            ).tolist()
            incumbent = max(incumbent, found, key=self._count) if incumbent else found
            if time.perf_counter() - start > _SHARE_OF_TIME * time_limit:
                break
        return self.finish(incumbent, start, time_limit)

    def _count(self, workers: list[int]) -> int:
        return count_distorted(self.assignment, workers)

    def finish(self, incumbent: list[int], start: float, time_limit: float) -> WorstCase:
        """Search from a first set: a worse one costs time, not correctness."""
        from byzshield_exp.distortion import search

        root = bounds.upper_bound(self.assignment, self.q)
        automorphisms = _verified(self.assignment)
        for size in _PREFIX_SIZES:
            if size > self.q or comb(len(self.files), size) > _TOO_MANY_PREFIXES:
                break
            prefixes = search.prefixes(len(self.files), size, self.q, automorphisms)
            if len(prefixes) >= _ENOUGH_TASKS:
                break
        self.best = (count_distorted(self.assignment, incumbent), len(prefixes), tuple(incumbent))
        left = max(0.0, start + time_limit - time.perf_counter())
        timer = threading.Timer(min(left, threading.TIMEOUT_MAX), self._halt)
        timer.start()
        try:
            with ThreadPoolExecutor(_cores()) as pool:
                open_bounds = list(pool.map(self._task, range(len(prefixes)), prefixes))
        finally:
            timer.cancel()
        count, _, workers = self.best
        proven = min(root, max([count, *open_bounds]))
        seconds = time.perf_counter() - start
        return WorstCase(workers, count, proven, proven == count, seconds, self.nodes, root)

    def _halt(self) -> None:
        self.stop[0] = 1

    def _task(self, number: int, prefix: np.ndarray) -> int:
        """Search below a prefix; returns a bound on what may still be there, -1 for nothing.

        A set that wins as many as the best so far replaces it only if it comes before it, so
        that the answer is the lexicographically first one whichever task ends first.
        """
        from byzshield_exp.distortion import search

        if self.stop[0]:
            return self._open(prefix)
        count, place, _ = self.best
        need = count + (place <= number)
        found = np.zeros(self.q, np.int64)
        most, nodes, finished = search.search(
            self.files, self.after, prefix, self.q, need, self.shared, self.stop, found
        )
        with self.lock:
            self.nodes += nodes
            if most >= 0 and (most, -number) > (self.best[0], -self.best[1]):
                self.best = (int(most), number, tuple(found.tolist()))
        return -1 if finished else self._open(prefix)

    def _open(self, prefix: np.ndarray) -> int:
        """Bound what is below a prefix that was not searched to the end."""
        from byzshield_exp.distortion import search

        self.finished = False
        return int(search.prefix_bound(self.files, self.after, prefix, self.q, self.shared))


def _verified(assignment: Assignment) -> np.ndarray:
    """The placement's automorphisms, each one checked."""
    identity = np.arange(assignment.num_workers)[None]
    if assignment.automorphisms is None:
        return identity
    known = assignment.automorphisms()
    if not (np.sort(known, axis=1) == identity).all():
        raise ValueError("an automorphism of the placement is no permutation of the workers")
    holders = assignment.workers_of_file.numpy()
    weights = np.random.default_rng(0).integers(0, 1 << 62, len(identity[0]), dtype=np.uint64)
    keys = np.sort(_file_keys(holders, weights))
    moved = np.empty_like(weights)
    for permutation in known:
        moved[permutation] = weights
        if not (np.sort(_file_keys(holders, moved)) == keys).all():
            raise ValueError("an automorphism of the placement does not map files onto files")
    return np.ascontiguousarray(known)


def _file_keys(holders: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A number per file that tells sets of holders apart (random weights of workers, 62 bits)."""
    return np.asarray(weights[holders].sum(axis=1))


def _words(table: np.ndarray) -> np.ndarray:
    """Rows of booleans ``[n, f]`` as 64-bit words ``[n, ceil(f / 64)]``."""
    rows, files = table.shape
    words = -(-files // 64)
    padded = np.zeros((rows, words * 64), bool)
    padded[:, :files] = table
    bits = padded.reshape(rows, words, 64).astype(np.uint64)
    shifted = bits << np.arange(64, dtype=np.uint64)
    return np.asarray(shifted.sum(axis=2, dtype=np.uint64))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
