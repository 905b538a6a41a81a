"""Placement by Ramanujan bigraphs from array codes.

``B`` is an ``s x m`` block matrix with block ``(a, c) = P^(a c)``, where ``P`` is the cyclic shift
of prime size ``s``: row ``(a, i)`` meets column ``(c, j)`` iff ``j = i - a c (mod s)``.

Source: Burnwal, Sinha and Vidyasagar, 2020; Konstantinidis and Ramamoorthy, "ByzShield",
MLSys 2021, Section 4.2.
"""

from math import isqrt

import torch

from byzshield_exp.assignments.assignment import Assignment
from byzshield_exp.assignments.primes import is_prime, nearest
from byzshield_exp.assignments.symmetry import generated


def ramanujan_one(num_workers: int, replication: int) -> Assignment:
    """Case 1, ``m = r < s = K / r``: workers are the columns of ``B``; ``f = s ** 2``, ``l = s``.

    Worker ``c * s + j`` holds the files ``a * s + (j + a c mod s)`` for ``a = 0..s-1``.

    Raises:
        ValueError: if ``K / r`` is not a prime above ``r``, or ``r < 2``.
    """
    if replication < 2 or _size_one(num_workers, replication) is None:
        near = nearest(num_workers, lambda k: _size_one(k, max(2, replication)))
        raise ValueError(
            "ramanujan_one needs r >= 2 and K = r*s with s prime and above r, "
            f"got K={num_workers} r={replication}; {near}"
        )
    size = num_workers // replication
    block, column, row = torch.meshgrid(
        torch.arange(replication), torch.arange(size), torch.arange(size), indexing="ij"
    )
    c, j = block[:, :, 0].flatten().numpy(), column[:, :, 0].flatten().numpy()
    moves = [c * size + (j + 1) % size, c * size + (j - c) % size]
    moves += [c * size + j * t % size for t in range(2, size)]
    return Assignment(
        (row * size + (column + row * block) % size).flatten(0, 1),
        automorphisms=lambda: generated(moves),
    )


def ramanujan_two(num_workers: int, replication: int, m: int | None = None) -> Assignment:
    """Case 2, ``s = r``, ``s | m``: workers are rows of ``B``; ``K = s^2``, ``f = m s``, ``l = m``.

    Worker ``a * s + i`` holds the files ``c * s + (i - a c mod s)`` for ``c = 0..m-1``.

    Args:
        num_workers: ``K``, must be ``r ** 2``.
        replication: ``r``, prime.
        m: files per worker, a multiple of ``r``; None means ``r``.

    Raises:
        ValueError: if ``r`` is not prime, ``K != r ** 2``, or ``m`` is no multiple of ``r``.
    """
    if not is_prime(replication) or num_workers != replication**2:
        near = nearest(num_workers, _size_two)
        raise ValueError(
            f"ramanujan_two needs r prime and K = r*r, got K={num_workers} r={replication}; {near}"
        )
    load = replication if m is None else m
    if load < replication or load % replication:
        raise ValueError(f"ramanujan_two needs m to be a multiple of r, got m={m} r={replication}")
    row, shift, block = torch.meshgrid(
        torch.arange(replication), torch.arange(replication), torch.arange(load), indexing="ij"
    )
    a, i, s = row[:, :, 0].flatten().numpy(), shift[:, :, 0].flatten().numpy(), replication
    moves = [a * s + (i + 1) % s, (a + 1) % s * s + i, a * s + (i + a) % s]
    moves += [a * s + i * t % s for t in range(2, s)]
    return Assignment(
        (block * replication + (shift - row * block) % replication).flatten(0, 1),
        automorphisms=lambda: generated(moves),
    )


def _size_one(num_workers: int, replication: int) -> str | None:
    size, rest = divmod(num_workers, replication)
    return f"s={size}" if not rest and size > replication and is_prime(size) else None


def _size_two(num_workers: int) -> str | None:
    root = isqrt(max(0, num_workers))
    return f"r={root}" if root * root == num_workers and is_prime(root) else None
