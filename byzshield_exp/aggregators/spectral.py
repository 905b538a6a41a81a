"""Rules that look for the direction in which rows spread most: CAF and DnC."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.geometry import Geometry, weighted_sum
from byzshield_exp.aggregators.rule import weighing, whole
from byzshield_exp.rows.parallel import sent


def _filter_bound(num_rows: int, num_corrupt: int) -> float:
    """Bound CAF's error for ``n > 3c``: at some step honest rows make up most of the spread."""
    left = num_rows - 3 * num_corrupt
    if left <= 0:
        return math.inf
    return 1 + math.sqrt(2 * num_rows / left * (1 + num_corrupt / left))


@weighing(bound=_filter_bound, raises_unclean=True)
def caf(rows: Geometry, num_corrupt: int) -> Float[Tensor, " n"]:
    """Covariance bound agnostic filter: rows lose weight as they stick out along the top
    eigenvector of the weighted covariance, until ``n - 2c`` of the weight is left; the weighted
    mean with the least top eigenvalue on the way.

    Exact eigenvectors, from the ``n x n`` inner products.

    Formula: y = the mu_w with the least lambda_max(cov_w) while w_i <- w_i (1 - s_i / max_j s_j),
        where s_i = <x_i - mu_w, u>^2, u is the top eigenvector of cov_w, and w_i = 1 at first.

    Raises:
        ValueError: unless ``2 * num_corrupt < n``.

    Source: Allouah, Guerraoui and Stephan, "Towards Trustworthy Federated Learning with Untrusted
    Participants", ICML 2025, Algorithm 2 (CAF).
    """  # noqa: D205
    num_rows = rows.num_rows
    if 2 * num_corrupt >= num_rows:
        raise ValueError(f"needs n > 2*num_corrupt, got n={num_rows} num_corrupt={num_corrupt}")
    gram = rows.gram[:-1, :-1]
    weights = gram.new_ones(num_rows)
    best, chosen = math.inf, weights
    while True:
        shares = weights / weights.sum()
        value, spread = _along_top(gram, shares)
        if value < best:
            best, chosen = value, shares
        spread = torch.where(weights > 0, spread, 0.0)
        if value == 0 or not bool(spread.max() > 0):
            return chosen
        weights = weights * (1 - spread / spread.max())
        if float(weights.sum()) <= num_rows - 2 * num_corrupt:
            return chosen


@whole(lacks=(), raises_unclean=True)
def dnc(
    rows: Float[Tensor, "n d"],
    num_corrupt: int,
    filter_fraction: float = 1.0,
    num_rounds: int = 1,
    num_coordinates: int = 10_000,
    generator: np.random.Generator | None = None,
) -> Float[Tensor, " d"]:
    """Divide and conquer: the mean of the rows that never stick out along the top singular vector.

    Each round looks at some coordinates and leaves out the ``filter_fraction * num_corrupt`` rows
    with the largest squared projection on the top right singular vector of the centred rows.

    Formula: y = the mean of the rows that are in no round among the ceil(filter_fraction c) with
        the largest s_i = <x_i - mu, v>^2, where v is the top right singular vector of the rows x_i
        - mu.

    Args:
        rows: one gradient per row.
        num_corrupt: how many rows may be forged.
        filter_fraction: more than 1 leaves out more than ``num_corrupt``.
        num_rounds: a row is averaged if every round keeps it.
        num_coordinates: of a round, drawn without replacement; all, where there are fewer.
        generator: draws the coordinates; None: always the same.

    Raises:
        ValueError: unless ``filter_fraction * num_corrupt * num_rounds < n`` and
            ``num_rounds, num_coordinates >= 1``.

    Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021, Algorithm 2.
    """
    num_rows, width = rows.shape
    left_out = math.ceil(filter_fraction * num_corrupt)
    if num_rounds < 1 or num_coordinates < 1:
        raise ValueError(
            f"needs num_rounds >= 1 and num_coordinates >= 1, got num_rounds={num_rounds} "
            f"num_coordinates={num_coordinates}"
        )
    if left_out * num_rounds >= num_rows:
        raise ValueError(
            f"needs n > filter_fraction*num_corrupt*num_rounds, got n={num_rows} "
            f"num_corrupt={num_corrupt} filter_fraction={filter_fraction} num_rounds={num_rounds}"
        )
    draw = generator or np.random.default_rng(0)
    shares = torch.full((num_rows,), 1 / num_rows, dtype=torch.float64)
    average = weighted_sum(shares, rows)
    kept = torch.ones(num_rows, dtype=torch.bool)
    for _ in range(num_rounds):
        size = min(num_coordinates, width)
        chosen = torch.from_numpy(np.sort(draw.choice(width, size, replace=False)))
        chosen = sent(chosen, rows.device)
        seen = rows[:, chosen].double() - average[chosen].double()
        seen /= seen.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        _, spread = _along_top((seen @ seen.T).cpu(), shares)
        kept[spread.argsort(stable=True)[num_rows - left_out :]] = False
    return weighted_sum(kept.double() / kept.sum(), rows)


def _along_top(
    gram: Float[Tensor, "n n"], shares: Float[Tensor, " n"]
) -> tuple[float, Float[Tensor, " n"]]:
    """The top eigenvalue of the weighted covariance, and squared distances to the mean along it."""
    seen = gram @ shares
    centred = gram - seen[:, None] - seen[None] + shares @ seen
    root = shares.sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * centred * root)
    value = max(0.0, float(values[-1]))
    if value == 0:
        return 0.0, torch.zeros_like(shares)
    return value, (centred @ (root * vectors[:, -1])).square() / value
