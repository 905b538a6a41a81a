"""Who lies. Every function is ``choose(step, ...) -> workers``, ascending, a function of the seed.

All workers of the run are numbered from 0.
"""

from itertools import chain, zip_longest

from byzshield_exp.assignments import Assignment
from byzshield_exp.distortion import WorstCase
from byzshield_exp.streams import Stream, generator


def none(step: int) -> tuple[int, ...]:
    """Nobody lies. The defence still counts on q liars."""
    return ()


def random(step: int, assignment: Assignment, num_byzantine: int, seed: int) -> tuple[int, ...]:
    """A new uniformly random set of q workers at every step, as in DETOX."""
    chosen = generator(seed, Stream.ADVERSARY, step).choice(
        assignment.num_workers, num_byzantine, replace=False
    )
    return tuple(sorted(chosen.tolist()))


def fixed_random(
    step: int, assignment: Assignment, num_byzantine: int, seed: int
) -> tuple[int, ...]:
    """One uniformly random set of q workers for the whole run."""
    return random(0, assignment, num_byzantine, seed)


def explicit(
    step: int, assignment: Assignment, num_byzantine: int, workers: list[int]
) -> tuple[int, ...]:
    """The given workers.

    Raises:
        ValueError: if they are not q different numbers from 0 to K-1.
    """
    if len(workers) != num_byzantine:
        raise ValueError(f"workers={workers} names {len(workers)} workers, but q={num_byzantine}")
    last = assignment.num_workers - 1
    if len(set(workers)) != len(workers) or not all(0 <= worker <= last for worker in workers):
        raise ValueError(f"workers={workers} must be different numbers from 0 to {last}")
    return tuple(sorted(workers))


def worst_case(step: int, worst: WorstCase) -> tuple[int, ...]:
    """The set that wins most files under this placement.

    Source: the omniscient adversary of ByzShield, MLSys 2021, Section 3.
    """
    return worst.workers


def one_per_group(step: int, assignment: Assignment, num_byzantine: int) -> tuple[int, ...]:
    """The first worker of each group in turn, then the second ones: the benign case for groups.

    Raises:
        ValueError: if the placement is not made of groups.
    """
    turns = chain.from_iterable(zip_longest(*assignment.groups))
    members = [worker for worker in turns if worker is not None]
    return tuple(sorted(members[:num_byzantine]))


def whole_group(step: int, assignment: Assignment, num_byzantine: int) -> tuple[int, ...]:
    """All workers of the first group, then of the second, up to q.

    Raises:
        ValueError: if the placement is not made of groups.
    """
    return tuple(sorted(list(chain.from_iterable(assignment.groups))[:num_byzantine]))
