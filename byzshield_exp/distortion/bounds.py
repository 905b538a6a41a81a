"""Bounds on the worst case: certificates that need no search."""

from math import comb, floor

import numpy as np

from byzshield_exp.assignments import Assignment


def gamma(assignment: Assignment, num_byzantine: int) -> float | None:
    """ByzShield's spectral upper bound on ``c_max(q)``, in files; None where r <= 2.

    With ``mu`` the second eigenvalue of ``H H^T / (l r)``, q workers reach at least
    ``beta = (q l / r) / (mu + (1 - mu) q / K)`` files, and so win at most
    ``(q l - beta) / (t - 1)`` with ``t = floor(r / 2) + 1``.

    Source: Konstantinidis and Ramamoorthy, "ByzShield", MLSys 2021, Claim 1; Zhu and Chugg, 2007.
    """
    load, replication = assignment.load, assignment.replication
    if replication <= 2 or num_byzantine == 0:
        return None if replication <= 2 else 0.0
    incidence = assignment.incidence.numpy().astype(float)
    spectrum = np.linalg.eigvalsh(incidence @ incidence.T / (load * replication))
    mu = float(spectrum[-2]) if len(spectrum) > 1 else 0.0
    share = num_byzantine / assignment.num_workers
    reached = num_byzantine * load / replication / (mu + (1 - mu) * share)
    return (num_byzantine * load - reached) / (assignment.majority - 1)


def incidence_bound(assignment: Assignment, num_byzantine: int) -> int:
    """``floor(q l / t)``: every file won needs t of the q l replicas that liars hold."""
    return num_byzantine * assignment.load // assignment.majority


def pair_bound(assignment: Assignment, num_byzantine: int) -> int | None:
    """Bound by pairs: a file won has ``C(t, 2)`` pairs of liars, and pairs share few files.

    Where workers fall into classes that share nothing inside (nets), the pairs are counted by
    Turan's theorem. None where a file needs a single holder.

    Source: own (a short proof is in docs/distortion.md); for nets with r = 3 it is floor(q^2 / 3).
    """
    needed = comb(assignment.majority, 2)
    if needed == 0:
        return None
    incidence = assignment.incidence.numpy().astype(np.int64)
    shared = incidence @ incidence.T
    np.fill_diagonal(shared, 0)
    most = int(shared.max())
    by_worker = np.sort(shared, axis=1)[:, ::-1][:, : max(0, num_byzantine - 1)].sum(axis=1)
    pairs = int(np.sort(by_worker)[::-1][:num_byzantine].sum()) // 2
    classes = _classes(shared)
    if classes is not None:
        pairs = min(pairs, most * _turan(num_byzantine, classes))
    return pairs // needed


def random_share(assignment: Assignment, num_byzantine: int) -> float:
    """The expected share of files that a uniformly random set of q workers wins, in [0, 1].

    It is the same for every placement with r different holders of each file; the worst case is at
    least the average, so it is also a lower bound on ``epsilon_hat(q)`` of all placements.

    Source: own; hypergeometric tail, met with equality by the full subset design.
    """
    workers, replication = assignment.num_workers, assignment.replication
    ways = sum(
        comb(replication, i) * comb(workers - replication, num_byzantine - i)
        for i in range(assignment.majority, min(replication, num_byzantine) + 1)
    )
    return ways / comb(workers, num_byzantine)


def upper_bound(assignment: Assignment, num_byzantine: int) -> int:
    """The least of the upper bounds, in files."""
    spectral = gamma(assignment, num_byzantine)
    pairs = pair_bound(assignment, num_byzantine)
    bounds = [incidence_bound(assignment, num_byzantine), assignment.num_files]
    bounds += [] if spectral is None else [floor(spectral + 1e-6)]
    bounds += [] if pairs is None else [pairs]
    return max(0, min(bounds))


def lower_bound(assignment: Assignment, num_byzantine: int) -> int:
    """The average over all sets, rounded up: some set wins at least that many files."""
    files = random_share(assignment, num_byzantine) * assignment.num_files
    return int(np.ceil(files - 1e-9))


def _classes(shared: np.ndarray) -> list[int] | None:
    """Sizes of the classes whose workers share no files, if sharing none is transitive."""
    apart = shared == 0  # a worker counts as sharing nothing with itself
    if not ((apart.astype(int) @ apart.astype(int) > 0) <= apart).all():
        return None
    return [len(rows) for rows in {row.tobytes(): np.flatnonzero(row) for row in apart}.values()]


def _turan(chosen: int, classes: list[int]) -> int:
    """The most pairs of different classes among ``chosen`` workers: the most balanced choice."""
    taken = [0] * len(classes)
    for _ in range(chosen):
        free = [i for i, size in enumerate(classes) if taken[i] < size]
        taken[min(free, key=taken.__getitem__)] += 1
    return comb(chosen, 2) - sum(comb(count, 2) for count in taken)
