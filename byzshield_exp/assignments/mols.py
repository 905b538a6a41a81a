"""Placement by mutually orthogonal Latin squares."""

import torch

from byzshield_exp.assignments.assignment import Assignment
from byzshield_exp.assignments.primes import is_prime, nearest


def mols(num_workers: int, replication: int) -> Assignment:
    """``r`` mutually orthogonal Latin squares of prime order ``l = K / r``: ``f = l ** 2``.

    Square ``a`` is ``L_a(i, j) = a * i + j (mod l)``. Each of its symbols is one worker, which
    holds the ``l`` cells (files ``i * l + j``) where the symbol appears. Workers of one square
    share no file, workers of two squares share exactly one.

    Raises:
        ValueError: if ``l`` is not a prime with ``l >= r + 1``; lists the nearest valid ``K``.

    Source: Konstantinidis and Ramamoorthy, "ByzShield", MLSys 2021, Algorithm 2.
    """
    if replication < 1 or _load(num_workers, replication) is None:
        near = nearest(num_workers, lambda k: _load(k, replication)) if replication > 0 else ""
        raise ValueError(
            "mols needs K = r*l with l prime and at least r+1, "
            f"got K={num_workers} r={replication}; {near}"
        )
    load = num_workers // replication
    square, symbol, row = torch.meshgrid(
        torch.arange(1, replication + 1), torch.arange(load), torch.arange(load), indexing="ij"
    )
    column = (symbol - square * row) % load
    return Assignment((row * load + column).flatten(0, 1))


def _load(num_workers: int, replication: int) -> str | None:
    load, rest = divmod(num_workers, replication)
    return f"l={load}" if not rest and load > replication and is_prime(load) else None
