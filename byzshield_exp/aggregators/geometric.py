"""The geometric median."""

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.distances import centred_gram, squared_distances

_TINY = 1e-150  # float64: its reciprocal, summed over rows, is still finite


def geometric_median(
    rows: Float[Tensor, "n d"],
    num_corrupt: int = 0,
    smoothing: float = 1e-6,
    tolerance: float = 1e-10,
    max_iterations: int = 1000,
) -> Float[Tensor, " d"]:
    """The point with the least sum of distances to the rows, by smoothed Weiszfeld iteration.

    The point is kept as weights over the rows, so that an iteration costs ``n^2``, not ``n d``,
    relative to the row with the nearest half of the others: far rows then cancel nothing.

    Args:
        rows: one gradient per row.
        num_corrupt: not used; the rule resists while ``2 * num_corrupt < n``.
        smoothing: distances count as at least this share of the median pairwise distance, > 0.
        tolerance: stop when no weight moves by more than this share of itself.
        max_iterations: stop after so many iterations in any case.

    Raises:
        ValueError: if ``smoothing`` is not positive.

    Source: Weiszfeld 1937; Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated
    Learning" (RFA), Algorithm 2, here run to tolerance.
    """
    if not smoothing > 0:
        raise ValueError(f"needs smoothing > 0, got smoothing={smoothing}")
    squared = squared_distances(rows)
    floor = (smoothing * squared.median().sqrt()).clamp_min(_TINY)
    gram = centred_gram(rows, int(squared.median(dim=1).values.argmin()))
    weights = torch.full_like(squared[0], 1 / len(rows))
    for _ in range(max_iterations):
        shadow = gram @ weights
        distances_squared = gram.diagonal() - 2 * shadow + weights @ shadow
        reach = distances_squared.clamp_min(0).sqrt().maximum(floor)
        moved = reach.reciprocal() / reach.reciprocal().sum()
        converged = float((moved / weights - 1).abs().max()) <= tolerance
        weights = moved
        if converged:
            break
    return weights.to(rows.dtype) @ rows
