"""Rules that average the best subset of ``n - num_corrupt`` rows: MDA and SMEA."""

import math
from collections.abc import Iterator
from itertools import chain, combinations, islice

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byzshield_exp.aggregators.geometry import Geometry
from byzshield_exp.aggregators.neighbours import check_some_left
from byzshield_exp.aggregators.rule import weighing

MOST_SUBSETS = 5_000_000
_BATCH = 4096  # subsets whose eigenvalues are computed in one call


@weighing(bound=lambda n, c: 3.0, raises_unclean=True)
def mda(rows: Geometry, num_corrupt: int) -> Float[Tensor, " n"]:
    """Minimum diameter averaging: the mean of the ``n - num_corrupt`` rows whose largest distance
    is least.

    Found exactly without looking at all subsets: rows that are too far from each other are the
    edges of a graph, and the rows to leave out are a vertex cover of at most ``num_corrupt``.

    Formula: y = the mean of S, the set of n - c rows with the least max over i, j in S of ||x_i -
        x_j||.

    Raises:
        ValueError: unless ``num_corrupt < n``.

    Source: El Mhamdi, Guerraoui, Guirguis, Hoang and Rouault, "Genuinely distributed Byzantine
    machine learning", PODC 2020; Rousseeuw 1985. Of subsets with equal diameter one with the
    least sum of squared distances.
    """  # noqa: D205
    check_some_left(rows.num_rows, num_corrupt)
    squared = rows.squared
    limits = squared.flatten().unique().tolist()
    low, high = 0, len(limits) - 1
    while low < high:
        middle = (low + high) // 2
        if next(_covers(squared > limits[middle], num_corrupt), None) is None:
            low = middle + 1
        else:
            high = middle
    covers = _covers(squared > limits[low], num_corrupt)
    kept = min((_kept(squared, cover, num_corrupt) for cover in covers), key=lambda at: at[0])[1]
    return kept.double() / kept.sum()


@weighing(bound=lambda n, c: 2 * math.sqrt((n - c) / (n - 2 * c)), raises_unclean=True)
def smea(rows: Geometry, num_corrupt: int) -> Float[Tensor, " n"]:
    """Smallest maximum eigenvalue averaging: the mean of the ``n - num_corrupt`` rows whose
    covariance has the least top eigenvalue.

    Exact: eigenvalues of ``n x n`` inner products; a subset is worse than the best so far unless
    ``best * I - covariance`` has a Cholesky factor, which is quick to try.

    Formula: y = the mean of S, the set of n - c rows with the least lambda_max(cov(S)), the
        largest eigenvalue of its covariance.

    Raises:
        ValueError: unless ``num_corrupt < n`` and there are at most 5,000,000 such subsets.

    Source: Allouah, Guerraoui, Gupta, Pinot and Stephan, "On the Privacy-Robustness-Utility
    Trilemma in Distributed Learning", ICML 2023.
    """  # noqa: D205
    num_rows = rows.num_rows
    check_some_left(num_rows, num_corrupt)
    subsets = math.comb(num_rows, num_corrupt)
    if subsets > MOST_SUBSETS:
        raise ValueError(
            f"needs at most {MOST_SUBSETS:,} subsets, got {subsets:,} with n={num_rows} "
            f"num_corrupt={num_corrupt}"
        )
    gram = rows.gram[:-1, :-1]
    best, chosen = math.inf, torch.arange(num_rows - num_corrupt)
    start = _far_rows_left_out(rows.squared, num_corrupt)
    for kept in chain([start], _subsets(num_rows, num_corrupt)):
        scatter = _scatter(gram, kept)
        if best < math.inf:
            test = -scatter
            test.diagonal(dim1=1, dim2=2).add_(best)
            better = torch.linalg.cholesky_ex(test).info == 0
            kept, scatter = kept[better], scatter[better]
        if len(kept):
            values = torch.linalg.eigvalsh(scatter)[:, -1]
            if float(values.min()) < best:
                best, chosen = float(values.min()), kept[values.argmin()]
    weights = gram.new_zeros(num_rows)
    weights[chosen] = 1 / len(chosen)
    return weights


def _covers(edges: Tensor, budget: int) -> Iterator[int]:
    """Vertex covers of at most ``budget`` vertices as bits, every minimal one among them."""
    neighbours = [
        sum(1 << at for at, is_edge in enumerate(row) if is_edge) for row in edges.tolist()
    ]
    return _branch(neighbours, (1 << len(neighbours)) - 1, budget)


def _branch(neighbours: list[int], left: int, budget: int) -> Iterator[int]:
    """Branch on the vertex with most edges: it is in the cover, or all its neighbours are."""
    degrees = [
        (row & left).bit_count() if left >> at & 1 else 0 for at, row in enumerate(neighbours)
    ]
    most = max(degrees)
    if most == 0:
        yield 0
        return
    if sum(degrees) > 2 * most * budget:
        return
    vertex = degrees.index(most)
    for cover in _branch(neighbours, left & ~(1 << vertex), budget - 1):
        yield cover | 1 << vertex
    around = neighbours[vertex] & left
    if most <= budget:
        for cover in _branch(neighbours, left & ~around & ~(1 << vertex), budget - most):
            yield cover | around


def _kept(squared: Tensor, cover: int, num_corrupt: int) -> tuple[float, Tensor]:
    """The rows outside a cover, without the farthest ones when too many are left."""
    kept = torch.tensor([not cover >> at & 1 for at in range(len(squared))])
    while int(kept.sum()) > len(squared) - num_corrupt:
        reach = torch.where(kept, squared[:, kept].sum(dim=1), -1.0)
        kept[int(reach.argmax())] = False
    return float(squared[kept][:, kept].sum()), kept


def _far_rows_left_out(squared: Tensor, num_corrupt: int) -> Int[Tensor, "1 m"]:
    """A good first subset: the farthest rows left out one by one."""
    middle = (len(squared) - 1) // 2
    order = squared.sort(dim=1).values[:, middle].argsort(stable=True)
    return order[: len(squared) - num_corrupt].sort().values[None]


def _subsets(num_rows: int, num_corrupt: int) -> Iterator[Tensor]:
    """All subsets of ``n - num_corrupt`` rows, in batches ``[b, n - num_corrupt]``."""
    removals = combinations(range(num_rows), num_corrupt)
    while batch := list(islice(removals, _BATCH)):
        kept = torch.ones(len(batch), num_rows, dtype=torch.bool)
        kept.scatter_(1, torch.tensor(batch, dtype=torch.int64).view(len(batch), -1), False)
        yield kept.nonzero()[:, 1].view(len(batch), -1)


def _scatter(gram: Tensor, kept: Int[Tensor, "b m"]) -> Float[Tensor, "b m m"]:
    """Inner products of the kept rows, seen from their mean."""
    part = gram[kept[:, :, None], kept[:, None, :]]
    part = part - part.mean(dim=1, keepdim=True)
    return part - part.mean(dim=2, keepdim=True)
