"""Rules that treat every coordinate on its own."""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.columns import mean_of_ordered
from byzshield_exp.aggregators.geometry import mixed_rows, weighted_sum
from byzshield_exp.aggregators.policy import Unclean
from byzshield_exp.aggregators.rule import coordinate_wise
from byzshield_exp.rows.finite import is_finite
from byzshield_exp.rows.parallel import chunk_for, each

_CHUNK = 1 << 14


def _in_honest_range(num_rows: int, num_corrupt: int) -> float:
    """Bound the error where every coordinate of the result lies in the honest range."""
    return math.sqrt(num_rows - num_corrupt)


def _near_honest_range(num_rows: int, num_corrupt: int) -> float:
    """The centre lies in the honest range, and n - c honest entries within that range of it."""
    return 3 * math.sqrt(num_rows - num_corrupt)


@coordinate_wise(raises_unclean=True)
def mean(rows: Float[Tensor, "n d"], num_corrupt: int = 0) -> Float[Tensor, " d"]:
    """The average row. No defence: one forged row moves it anywhere.

    Formula: y = (1 / n) sum_i x_i.

    Source: plain synchronous SGD; after a vote, DRACO's repetition code (Chen et al., ICML 2018).
    """
    return weighted_sum(rows.new_full((len(rows),), 1 / len(rows), dtype=torch.float64), rows)


@coordinate_wise(bound=_in_honest_range, raises_unclean=True)
def median(
    rows: Float[Tensor, "n d"], num_corrupt: int = 0, even: Literal["mean", "lower"] = "mean"
) -> Float[Tensor, " d"]:
    """The coordinate-wise median.

    Stays within the range of the honest entries while ``2 * num_corrupt < n``.

    Formula: y[k] = median(x_1[k], ..., x_n[k]).

    Args:
        rows: one gradient per row.
        num_corrupt: not used.
        even: which median of an even number: the mean of the two middle entries (ByzShield,
            ByzFL, Blades, krum) or the lower one (Garfield, ByzantineMomentum).

    Source: Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018, Definition 1.
    """
    if even == "lower":
        lower = (len(rows) - 1) // 2
        return mean_of_ordered(rows, lower, lower + 1)
    return coordinate_median(rows)


@coordinate_wise(bound=_in_honest_range, raises_unclean=True)
def trimmed_mean(rows: Float[Tensor, "n d"], num_corrupt: int) -> Float[Tensor, " d"]:
    """Coordinate-wise mean without the ``num_corrupt`` largest and smallest entries.

    Formula: y[k] = 1 / (n - 2c) sum over i = c + 1 ... n - c of x_(i)[k], entries sorted: x_(1)[k]
        <= ... <= x_(n)[k].

    Raises:
        ValueError: unless ``2 * num_corrupt < n``.

    Source: Yin et al., ICML 2018, Definition 2, with ``beta = num_corrupt / n``.
    """
    _check_majority(len(rows), num_corrupt)
    return mean_of_ordered(rows, num_corrupt, len(rows) - num_corrupt)


@coordinate_wise(bound=_near_honest_range, raises_unclean=True)
def meamed(rows: Float[Tensor, "n d"], num_corrupt: int) -> Float[Tensor, " d"]:
    """Mean around median: per coordinate, the mean of the ``n - num_corrupt`` entries nearest
    to the median (of an even number, the mean of the two middle ones).

    Formula: y[k] = the mean of the n - c entries x_i[k] with the least |x_i[k] - median_j x_j[k]|.

    Raises:
        ValueError: unless ``2 * num_corrupt < n``.

    Source: Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", 2018, Definition 8.
    """  # noqa: D205
    _check_majority(len(rows), num_corrupt)
    return mean_around_median(rows, len(rows) - num_corrupt)


@coordinate_wise(bound=_near_honest_range, raises_unclean=True)
def phocas(rows: Float[Tensor, "n d"], num_corrupt: int) -> Float[Tensor, " d"]:
    """Per coordinate, the mean of the ``n - num_corrupt`` entries nearest to the trimmed mean.

    Formula: y[k] = the mean of the n - c entries x_i[k] with the least |x_i[k] - t[k]|, where t is
        the trimmed mean.

    Raises:
        ValueError: unless ``2 * num_corrupt < n``.

    Source: Xie, Koyejo and Gupta, "Phocas: dimensional Byzantine-resilient SGD", 2018,
    Definition 7.
    """
    num_rows = len(rows)
    _check_majority(num_rows, num_corrupt)
    return mean_of_ordered(rows, num_corrupt, num_rows - num_corrupt, num_rows - num_corrupt)


@coordinate_wise(lacks=("translation", "scale", "equal rows"), raises_unclean=True)
def sign_majority(rows: Float[Tensor, "n d"], num_corrupt: int = 0) -> Float[Tensor, " d"]:
    """The sign (-1, 0 or 1) of the sum of the rows' signs: a majority vote per coordinate.

    Formula: y[k] = sign(sum_i sign(x_i[k])).

    Source: Bernstein et al., "signSGD with Majority Vote", ICLR 2019.
    """
    chunk = chunk_for(rows.device, _CHUNK)

    def majority(start: int) -> Tensor:
        part = rows[:, start : start + chunk]
        if not is_finite(part):
            raise Unclean
        return part.sign().sum(dim=0).sign()

    return torch.cat(each(majority, range(0, rows.shape[1], chunk), rows.device))


@coordinate_wise(lacks=("permutation",), raises_unclean=True)
def median_of_means(
    rows: Float[Tensor, "n d"],
    num_corrupt: int,
    num_buckets: int | None = None,
    generator: np.random.Generator | None = None,
) -> Float[Tensor, " d"]:
    """The coordinate-wise median of the means of ``num_buckets`` buckets.

    Formula: y[k] = median over buckets b of (1 / |b|) sum over i in b of x_i[k].

    Args:
        rows: one gradient per row.
        num_corrupt: how many rows may be forged.
        num_buckets: their number, not their size; sizes differ by at most one. None: the fewest
            of which a majority is clean, ``2 * num_corrupt + 1``, and at most ``n``.
        generator: shuffles the rows into the buckets; None keeps their order.

    Raises:
        ValueError: unless ``1 <= num_buckets <= n``.

    Source: the second stage of DETOX (Rajput et al., NeurIPS 2019), where it is "MoM".
    """
    num_rows = len(rows)
    count = min(2 * num_corrupt + 1, num_rows) if num_buckets is None else num_buckets
    if not 1 <= count <= num_rows:
        raise ValueError(f"needs 1 <= num_buckets <= n, got num_buckets={count} n={num_rows}")
    order = np.arange(num_rows) if generator is None else generator.permutation(num_rows)
    shares = rows.new_zeros((count, num_rows), dtype=torch.float64)
    for bucket, members in enumerate(np.array_split(order, count)):
        shares[bucket, members] = 1 / len(members)
    return coordinate_median(mixed_rows(shares, rows))


def coordinate_median(rows: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The median without the policy for rows that are not finite."""
    return mean_of_ordered(rows, (len(rows) - 1) // 2, len(rows) // 2 + 1)


def mean_around_median(rows: Float[Tensor, "n d"], keep: int) -> Float[Tensor, " d"]:
    """Per coordinate, the mean of the ``keep`` entries nearest to the median."""
    return mean_of_ordered(rows, (len(rows) - 1) // 2, len(rows) // 2 + 1, keep)


def _check_majority(num_rows: int, num_corrupt: int) -> None:
    if 2 * num_corrupt >= num_rows:
        raise ValueError(f"needs n > 2*num_corrupt, got n={num_rows} num_corrupt={num_corrupt}")
