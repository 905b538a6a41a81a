"""Placements by block designs: points are workers, blocks are files."""

from collections.abc import Callable
from itertools import combinations, product
from math import comb, isqrt

import numpy as np
import torch

from byzshield_exp.assignments.assignment import Assignment
from byzshield_exp.assignments.fields import field
from byzshield_exp.assignments.primes import nearest, prime_power
from byzshield_exp.assignments.symmetry import generated

MAX_FILES = 20_000


def affine_plane(num_workers: int, replication: int) -> Assignment:
    """AG(2, r): the ``r ** 2`` points are workers, the ``r ** 2 + r`` lines files; ``l = r + 1``.

    Any two workers share exactly one file: a 2-(r^2, r, 1) design.

    Raises:
        ValueError: if ``r`` is not a prime power or ``K != r ** 2``.

    Source: textbook; suggested for Aspis+ in Konstantinidis and Ramamoorthy, arXiv 2208.08085.
    """

    def size(k: int) -> str | None:
        root = isqrt(max(0, k))
        return f"r={root}" if root * root == k and prime_power(root) else None

    if size(num_workers) != f"r={replication}":
        raise ValueError(
            "affine_plane needs r a prime power and K = r*r, "
            f"got K={num_workers} r={replication}; {nearest(num_workers, size)}"
        )
    add, times = field(replication)
    numbers = range(replication)
    points = {(x, y): x * replication + y for x, y in product(numbers, numbers)}
    lines = [[(x, int(add[times[m, x], b])) for x in numbers] for m in numbers for b in numbers]
    lines += [[(c, y) for y in numbers] for c in numbers]
    moves: list[Callable[[int, int], tuple[int, int]]] = [lambda x, y: (y, x)]
    moves += [lambda x, y, c=c: (int(add[x, c]), y) for c in numbers]  # type: ignore[misc]
    moves += [lambda x, y, c=c: (x, int(add[y, times[c, x]])) for c in numbers]  # type: ignore[misc]
    moves += [lambda x, y, c=c: (int(times[c, x]), y) for c in numbers if c]  # type: ignore[misc]
    return _from_blocks(
        [[points[p] for p in line] for line in lines],
        num_workers,
        [np.array([points[move(x, y)] for x, y in points]) for move in moves],
    )


def projective_plane(num_workers: int, replication: int) -> Assignment:
    """PG(2, r - 1): points are workers, lines files; ``K = f = r^2 - r + 1``, ``l = r``.

    Any two workers share exactly one file.

    Raises:
        ValueError: if ``r - 1`` is not a prime power or ``K != r ** 2 - r + 1``.

    Source: textbook (Singer, 1938).
    """

    def size(k: int) -> str | None:
        order = (isqrt(max(0, 4 * k - 3)) - 1) // 2
        fits = order * order + order + 1 == k and prime_power(order) is not None
        return f"r={order + 1}" if fits else None

    if size(num_workers) != f"r={replication}":
        raise ValueError(
            "projective_plane needs r-1 a prime power and K = r*r-r+1, "
            f"got K={num_workers} r={replication}; {nearest(num_workers, size)}"
        )
    add, times = field(replication - 1)
    numbers = range(replication - 1)
    triples = [(1, y, z) for y in numbers for z in numbers] + [(0, 1, z) for z in numbers]
    triples.append((0, 0, 1))
    number: dict[tuple[int, ...], int] = {triple: n for n, triple in enumerate(triples)}

    def dot(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        return int(add[add[times[a[0], b[0]], times[a[1], b[1]]], times[a[2], b[2]]])

    def normal(triple: tuple[int, ...]) -> tuple[int, ...]:
        lead = next(x for x in triple if x)
        inverse = int((times[lead] == 1).argmax())
        return tuple(int(times[inverse, x]) for x in triple)

    moves: list[Callable[[int, int, int], tuple[int, ...]]]
    moves = [lambda x, y, z: (y, z, x), lambda x, y, z: (y, x, z)]
    moves += [lambda x, y, z, c=c: (x, int(add[y, times[c, x]]), z) for c in numbers]  # type: ignore[misc]
    moves += [lambda x, y, z, c=c: (x, int(times[c, y]), z) for c in numbers if c]  # type: ignore[misc]
    return _from_blocks(
        [[number[p] for p in triples if dot(p, line) == 0] for line in triples],
        num_workers,
        [np.array([number[normal(move(*t))] for t in triples]) for move in moves],
    )


def steiner(num_workers: int, replication: int = 3) -> Assignment:
    """A Steiner triple system 2-(K, 3, 1): ``f = K (K - 1) / 6`` triples, ``l = (K - 1) / 2``.

    For ``K = 2^n - 1`` the lines of PG(n - 1, 2); else Bose's (K = 3 mod 6) or Skolem's (1 mod 6).

    Raises:
        ValueError: if ``r != 3`` or ``K`` is not 1 or 3 modulo 6 and at least 7.

    Source: Bose 1939; Skolem 1958; in Aspis+, arXiv 2208.08085, for K = 15 and 25.
    """

    def size(k: int) -> str | None:
        return "" if k % 6 in (1, 3) and k >= 7 else None

    if replication != 3 or size(num_workers) is None:
        raise ValueError(
            "steiner needs r=3 and K = 1 or 3 modulo 6, at least 7, "
            f"got K={num_workers} r={replication}; {nearest(num_workers, size)}"
        )
    if (num_workers + 1) & num_workers == 0:
        return _binary_lines(num_workers)
    return _bose(num_workers) if num_workers % 6 == 3 else _skolem(num_workers)


def subsets(num_workers: int, replication: int) -> Assignment:
    """Every set of r workers is a file: ``f = C(K, r)``, ``l = C(K - 1, r - 1)``.

    No placement has a smaller worst case, and none sends more messages.

    Raises:
        ValueError: if ``1 <= r <= K`` does not hold or there are more than 20,000 files.

    Source: Konstantinidis and Ramamoorthy, Aspis, arXiv 2108.02416, ISIT 2022.
    """
    if not 1 <= replication <= num_workers or comb(num_workers, replication) > MAX_FILES:
        raise ValueError(
            f"subsets needs 1 <= r <= K and at most {MAX_FILES:,} files C(K, r), "
            f"got K={num_workers} r={replication}"
        )
    swaps = []
    for worker in range(num_workers - 1):
        swap = np.arange(num_workers)
        swap[[worker, worker + 1]] = worker + 1, worker
        swaps.append(swap)
    blocks = [list(block) for block in combinations(range(num_workers), replication)]
    identity = [np.arange(num_workers)]
    return _from_blocks(blocks, num_workers, identity + swaps, close=False)


def _binary_lines(num_workers: int) -> Assignment:
    """Points are the non-zero binary vectors; ``{a, b, a xor b}`` are the lines."""
    blocks = [
        [a - 1, b - 1, (a ^ b) - 1]
        for a, b in combinations(range(1, num_workers + 1), 2)
        if a ^ b > b
    ]
    vectors = np.arange(1, num_workers + 1)
    bits = num_workers.bit_length()
    moves = []
    for one, two in product(range(bits), repeat=2):
        if one != two:  # add coordinate one to coordinate two
            moves.append((vectors ^ (((vectors >> one) & 1) << two)) - 1)
    return _from_blocks(blocks, num_workers, moves)


def _bose(num_workers: int) -> Assignment:
    size = num_workers // 3
    half = (size + 1) // 2  # 1 / 2 modulo the odd size
    blocks = [[x, x + size, x + 2 * size] for x in range(size)]
    blocks += [
        [x + i * size, y + i * size, (x + y) * half % size + (i + 1) % 3 * size]
        for x, y in combinations(range(size), 2)
        for i in range(3)
    ]
    place, level = np.arange(num_workers) % size, np.arange(num_workers) // size
    shift = (place + 1) % size + level * size
    lift = place + (level + 1) % 3 * size
    return _from_blocks(blocks, num_workers, [shift, lift])


def _skolem(num_workers: int) -> Assignment:
    size = num_workers // 3  # 2t; the last point stands apart
    half, apart = size // 2, num_workers - 1

    def middle(x: int, y: int) -> int:
        total = (x + y) % size
        return total // 2 if total % 2 == 0 else (total - 1) // 2 + half

    blocks = [[x, x + size, x + 2 * size] for x in range(half)]
    blocks += [
        [apart, x + half + i * size, x + (i + 1) % 3 * size] for x in range(half) for i in range(3)
    ]
    blocks += [
        [x + i * size, y + i * size, middle(x, y) + (i + 1) % 3 * size]
        for x, y in combinations(range(size), 2)
        for i in range(3)
    ]
    points = np.arange(num_workers)
    lift = points % size + (points // size + 1) % 3 * size
    lift[apart] = apart
    return _from_blocks(blocks, num_workers, [lift])


def _from_blocks(
    blocks: list[list[int]],
    num_workers: int,
    permutations: list[np.ndarray],
    close: bool = True,
) -> Assignment:
    files: list[list[int]] = [[] for _ in range(num_workers)]
    for file, block in enumerate(blocks):
        for worker in block:
            files[worker].append(file)
    return Assignment(
        torch.tensor(files),
        automorphisms=lambda: generated(permutations) if close else np.stack(permutations),
    )
