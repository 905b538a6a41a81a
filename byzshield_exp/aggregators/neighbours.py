"""Rules that trust rows with near neighbours: Krum, Multi-Krum, Bulyan."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byzshield_exp.aggregators.coordinates import sort_columns
from byzshield_exp.aggregators.distances import squared_distances


def krum(rows: Float[Tensor, "n d"], num_corrupt: int) -> Float[Tensor, " d"]:
    """The row with the smallest sum of squared distances to its ``n - num_corrupt - 2`` nearest.

    Raises:
        ValueError: unless ``n >= 2 * num_corrupt + 3``.

    Source: Blanchard et al., "Machine Learning with Adversaries", NIPS 2017, Section 4.
    """
    return multi_krum(rows, num_corrupt, m=1)


def multi_krum(
    rows: Float[Tensor, "n d"], num_corrupt: int, m: int | None = None
) -> Float[Tensor, " d"]:
    """The mean of the ``m`` rows with the smallest Krum scores.

    Args:
        rows: one gradient per row.
        num_corrupt: how many rows may be forged; ``n >= 2 * num_corrupt + 3``.
        m: rows to average, ``1 <= m <= n``; None means ``n - num_corrupt - 2`` (ByzShield, DETOX).

    Raises:
        ValueError: if either bound is broken.

    Source: Blanchard et al., NIPS 2017, Section 5. Of equal scores the row nearer to all others
    comes first, so that the order of rows does not matter.
    """
    num_rows = len(rows)
    _check(num_rows, num_corrupt, 2)
    count = num_rows - num_corrupt - 2 if m is None else m
    if not 1 <= count <= num_rows:
        raise ValueError(f"needs 1 <= m <= n, got m={count} n={num_rows}")
    chosen = _by_krum_score(squared_distances(rows), num_rows - num_corrupt - 2)[:count]
    return rows[chosen.sort().values].mean(dim=0)


def bulyan(rows: Float[Tensor, "n d"], num_corrupt: int) -> Float[Tensor, " d"]:
    """Krum picks ``t = n - 2c`` rows one by one; then, per coordinate, the mean of the ``t - 2c``
    entries nearest to the median of the picked ones.

    Raises:
        ValueError: unless ``n >= 4 * num_corrupt + 3``.

    Source: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability", ICML 2018, Section 4.
    As published: each pick is removed before the next. (The ByzShield code picks ``n - c - 2``
    at once and averages the middle of the sorted entries.) Krum among the ``k`` rows that are
    left counts ``max(1, k - c - 2)`` neighbours.
    """  # noqa: D205
    num_rows = len(rows)
    _check(num_rows, num_corrupt, 4)
    picked = _pick_by_krum(squared_distances(rows), num_corrupt, num_rows - 2 * num_corrupt)
    return _mean_around_median(rows[picked], num_rows - 4 * num_corrupt)


def _check(num_rows: int, num_corrupt: int, factor: int) -> None:
    if num_corrupt < 0 or num_rows < factor * num_corrupt + 3:
        raise ValueError(
            f"needs n >= {factor}*num_corrupt+3, got n={num_rows} num_corrupt={num_corrupt}"
        )


def _by_krum_score(squared: Float[Tensor, "k k"], neighbours: int) -> Int[Tensor, " k"]:
    """Rows by the sum of their smallest distances to others (the zero to itself is the first)."""
    ordered = squared.sort(dim=1).values
    nearer_to_all = ordered.sum(dim=1).argsort(stable=True)
    scores = ordered[:, 1 : 1 + neighbours].sum(dim=1)
    return nearer_to_all[scores[nearer_to_all].argsort(stable=True)]


def _pick_by_krum(
    squared: Float[Tensor, "n n"], num_corrupt: int, count: int
) -> Int[Tensor, " count"]:
    left = torch.arange(len(squared))
    picked = []
    for _ in range(count):
        neighbours = max(1, len(left) - num_corrupt - 2)
        best = int(left[_by_krum_score(squared[left][:, left], neighbours)[0]])
        picked.append(best)
        left = left[left != best]
    return torch.tensor(picked)


def _mean_around_median(rows: Float[Tensor, "m d"], keep: int) -> Float[Tensor, " d"]:
    """Per coordinate, the mean of the ``keep`` entries nearest to the median.

    In sorted order these are consecutive, so the best window is the one whose farther end is
    nearest to the median.
    """
    ordered = sort_columns(rows)
    centre = (ordered[(len(rows) - 1) // 2] + ordered[len(rows) // 2]) / 2
    starts = len(rows) - keep + 1
    reach = torch.maximum(centre - ordered[:starts], ordered[keep - 1 :] - centre)
    first = reach.argmin(dim=0)
    total = torch.zeros_like(centre)
    for offset in range(keep):
        total += ordered.gather(0, (first + offset).unsqueeze(0)).squeeze(0)
    return total / keep
