"""Rules that trust rows with near neighbours: Krum, Multi-Krum, Bulyan, MoNNA."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byzshield_exp.aggregators.coordinates import mean_around_median, trimmed_mean
from byzshield_exp.aggregators.counts import count
from byzshield_exp.aggregators.geometry import Geometry
from byzshield_exp.aggregators.rule import choice, weighing


def _near_honest_rows(num_rows: int, num_corrupt: int) -> float:
    """Bound Krum's error: a row that scores no worse than an honest one is near an honest one."""
    neighbours = num_rows - num_corrupt - 2
    return 1 + 2 * math.sqrt(neighbours / (neighbours - num_corrupt + 1))


@weighing(bound=_near_honest_rows, raises_unclean=True)
def krum(
    rows: Geometry, num_corrupt: int, neighbours: int | str = "n-c-2", squared: bool = True
) -> Float[Tensor, " n"]:
    """The row with the smallest sum of squared distances to its nearest neighbours.

    Formula: y = the x_i with the least s_i = sum over j in N_i of ||x_i - x_j||^2, where N_i are
        its n - c - 2 nearest other rows.

    Args:
        rows: one gradient per row.
        num_corrupt: c, how many rows may be forged.
        neighbours: how many; a number or a text. ``n-c-2`` in the paper, ByzShield, DETOX,
            Blades, Flower and krum; ``n-c-1`` in ByzFL, ByzPy and Garfield.
        squared: sum squared distances (the paper and all libraries but Garfield).

    Raises:
        ValueError: unless ``n >= 2 * num_corrupt + 3`` and ``1 <= neighbours < n``.

    Source: Blanchard et al., "Machine Learning with Adversaries", NIPS 2017, Section 4. Of equal
    scores the row nearer to all others wins, so that the order of rows does not matter.
    """
    return _uniform(_by_score(rows, num_corrupt, neighbours, squared)[:1], rows.num_rows)


@weighing(bound=_near_honest_rows, raises_unclean=True)
def multi_krum(
    rows: Geometry,
    num_corrupt: int,
    m: int | str = "n-c-2",
    neighbours: int | str = "n-c-2",
    squared: bool = True,
) -> Float[Tensor, " n"]:
    """The mean of the ``m`` rows with the smallest Krum scores.

    Formula: y = (1 / m) sum of the m rows with the least s_i, the scores of Krum.

    Args:
        rows: one gradient per row.
        num_corrupt: c, how many rows may be forged.
        m: rows to average; a number or a text. ``n-c-2`` in ByzShield, DETOX and Garfield, ``n-c``
            in ByzFL, ``n-2c-3`` in krum; the paper leaves it open.
        neighbours: as in :func:`krum`.
        squared: as in :func:`krum`.

    Raises:
        ValueError: unless ``n >= 2 * num_corrupt + 3``, ``1 <= m <= n`` and
            ``1 <= neighbours < n``.

    Source: Blanchard et al., NIPS 2017, Section 5.
    """
    chosen = count("m", m, rows.num_rows, num_corrupt)
    return _uniform(_by_score(rows, num_corrupt, neighbours, squared)[:chosen], rows.num_rows)


def _middle_of(chosen: Float[Tensor, "t d"], num_corrupt: int, one_shot: bool = False) -> Tensor:
    """Average the middle entries of the chosen rows: Bulyan's second step."""
    if one_shot:
        return trimmed_mean(chosen, num_corrupt)
    return mean_around_median(chosen, len(chosen) - 2 * num_corrupt)


@choice(then=_middle_of, bound=lambda n, c: 3 * math.sqrt(n - c), raises_unclean=True)
def bulyan(rows: Geometry, num_corrupt: int, one_shot: bool = False) -> Float[Tensor, " n"]:
    """Krum picks ``t = n - 2c`` rows one by one; then, per coordinate, the mean of the ``t - 2c``
    entries nearest to the median of the picked ones.

    Formula: y[k] = the mean of the t - 2c entries x_i[k], i in S, with the least |x_i[k] - median
        over S|, where S are the t = n - 2c rows that Krum picks.

    Args:
        rows: one gradient per row.
        num_corrupt: c, how many rows may be forged.
        one_shot: as in the ByzShield and DETOX codes: the ``n - c - 2`` rows with the best Krum
            scores at once, and the mean of their ``n - 3c - 2`` middle entries.

    Raises:
        ValueError: unless ``n >= 4 * num_corrupt + 3``.

    Source: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability", ICML 2018, Section 4.
    As published: each pick is removed before the next. Krum among the ``k`` rows that are left
    counts ``max(1, k - c - 2)`` neighbours.
    """  # noqa: D205
    _check(rows.num_rows, num_corrupt, 4)
    if one_shot:
        picked = _by_score(rows, num_corrupt, "n-c-2", True)[: rows.num_rows - num_corrupt - 2]
    else:
        picked = _one_by_one(rows.squared, num_corrupt, rows.num_rows - 2 * num_corrupt)
    return _uniform(picked, rows.num_rows)


@weighing(lacks=("permutation",), raises_unclean=True)
def monna(rows: Geometry, num_corrupt: int, trusted: int = 0) -> Float[Tensor, " n"]:
    """The mean of the ``n - num_corrupt`` rows nearest to one trusted row, itself among them.

    Formula: y = the mean of the n - c rows with the least ||x_i - x_t||, where t is the trusted
        row.

    Args:
        rows: one gradient per row.
        num_corrupt: how many rows may be forged.
        trusted: the number of a row that is known to be honest.

    Raises:
        ValueError: unless ``num_corrupt < n`` and ``0 <= trusted < n``.

    Source: Farhadkhani et al., "Robust Collaborative Learning with Linear Gradient Overhead",
    ICML 2023 (MoNNA's nearest neighbour averaging).
    """
    if not 0 <= trusted < rows.num_rows:
        raise ValueError(f"needs 0 <= trusted < n, got trusted={trusted} n={rows.num_rows}")
    check_some_left(rows.num_rows, num_corrupt)
    apart = rows.distances_from(trusted).clone()
    apart[trusted] = -1
    return _uniform(apart.argsort(stable=True)[: rows.num_rows - num_corrupt], rows.num_rows)


def check_some_left(num_rows: int, num_corrupt: int) -> None:
    """Check that not all rows may be forged.

    Raises:
        ValueError: unless ``num_corrupt < n``.
    """
    if num_corrupt >= num_rows:
        raise ValueError(f"needs n > num_corrupt, got n={num_rows} num_corrupt={num_corrupt}")


def _check(num_rows: int, num_corrupt: int, factor: int) -> None:
    if num_rows < factor * num_corrupt + 3:
        raise ValueError(
            f"needs n >= {factor}*num_corrupt+3, got n={num_rows} num_corrupt={num_corrupt}"
        )


def _uniform(chosen: Int[Tensor, " m"], num_rows: int) -> Float[Tensor, " n"]:
    weights = torch.zeros(num_rows, dtype=torch.float64)
    weights[chosen] = 1 / len(chosen)
    return weights


def _by_score(
    rows: Geometry, num_corrupt: int, neighbours: int | str, squared: bool
) -> Int[Tensor, " n"]:
    """Order the rows by ascending Krum score."""
    _check(rows.num_rows, num_corrupt, 2)
    near = count("neighbours", neighbours, rows.num_rows, num_corrupt)
    if near == rows.num_rows:
        raise ValueError(f"needs neighbours < n, got neighbours={near} n={rows.num_rows}")
    return _order(rows.squared if squared else rows.squared.sqrt(), near)


def _order(distances: Float[Tensor, "k k"], neighbours: int) -> Int[Tensor, " k"]:
    """Order rows by the sum of their smallest distances, without the zero to themselves."""
    ordered = distances.sort(dim=1).values
    nearer_to_all = ordered.sum(dim=1).argsort(stable=True)
    scores = ordered[:, 1 : 1 + neighbours].sum(dim=1)
    return nearer_to_all[scores[nearer_to_all].argsort(stable=True)]


def _one_by_one(
    squared: Float[Tensor, "n n"], num_corrupt: int, picks: int
) -> Int[Tensor, " picks"]:
    left = torch.arange(len(squared))
    picked = []
    for _ in range(picks):
        neighbours = max(1, len(left) - num_corrupt - 2)
        best = int(left[_order(squared[left][:, left], neighbours)[0]])
        picked.append(best)
        left = left[left != best]
    return torch.tensor(picked)
