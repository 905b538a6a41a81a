"""The geometric median and centred clipping, iterated on weights instead of vectors."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.coordinates import coordinate_median
from byzshield_exp.aggregators.geometry import Geometry, weighted_sum
from byzshield_exp.aggregators.rule import weighing, whole
from byzshield_exp.rows.finite import is_finite

_TINY = 1e-150  # float64: its reciprocal, summed over rows, is still finite


@weighing(bound=lambda n, c: 2 * (n - c) / (n - 2 * c), raises_unclean=True)
def geometric_median(
    rows: Geometry,
    num_corrupt: int = 0,
    smoothing: float = 1e-6,
    nu: float | None = None,
    start: Literal["mean", "zero"] = "mean",
    tolerance: float = 1e-10,
    max_iterations: int = 1000,
) -> Float[Tensor, " n"]:
    """The point with the least sum of distances to the rows, by smoothed Weiszfeld iteration.

    The point is kept as weights over the rows, so that an iteration costs ``n^2``, not ``n d``.

    Formula: y = argmin_y sum_i ||x_i - y||; iterated as y <- sum_i w_i x_i / sum_i w_i with w_i =
        1 / max(||x_i - y||, nu).

    Args:
        rows: one gradient per row.
        num_corrupt: not used; the rule resists while ``2 * num_corrupt < n``.
        smoothing: distances count as at least this share of the median pairwise distance, > 0.
        nu: if given, distances count as at least this number instead (RFA's and ByzFL's nu).
        start: the mean of the rows, or zero (ByzFL).
        tolerance: stop when no weight moves by more than this share of itself.
        max_iterations: the most iterations, at least 1.

    Raises:
        ValueError: unless ``smoothing``, ``nu`` and ``max_iterations`` are positive.

    Source: Weiszfeld 1937; Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated
    Learning" (RFA), Algorithm 2, here run to tolerance.
    """
    if not smoothing > 0 or not (nu is None or nu > 0) or max_iterations < 1:
        raise ValueError(
            f"needs smoothing, nu, max_iterations > 0, got smoothing={smoothing} nu={nu} "
            f"max_iterations={max_iterations}"
        )
    middle = rows.squared.median().sqrt()
    floor = (smoothing * middle).clamp_min(_TINY) if nu is None else middle.new_tensor(nu)
    floor = floor if nu is None else floor / rows.scale
    gram = rows.gram
    weights = torch.full_like(gram[0], 1 / rows.num_rows)
    weights[-1] = 0
    if start == "zero":
        weights = 1 - (weights > 0).double()
    for _ in range(max_iterations):
        inverse = _reach(gram, weights)[:-1].maximum(floor).reciprocal()
        moved = inverse / inverse.sum()
        converged = bool(((moved - weights[:-1]).abs() <= tolerance * weights[:-1]).all())
        weights = torch.cat([moved, torch.zeros_like(moved[:1])])
        if converged:
            break
    return weights[:-1]


@whole(bound=lambda n, c: 2 * math.sqrt(n - c) + 1, raises_unclean=True)
def centered_clip(
    rows: Float[Tensor, "n d"],
    num_corrupt: int = 0,
    tau: float | Literal["auto", "calibrated"] = "auto",
    iterations: int | None = None,
    start: Literal["previous", "previous_or_zero", "median", "mean", "zero"] = "previous",
    tolerance: float | None = None,
    previous: Float[Tensor, " d"] | None = None,
) -> Float[Tensor, " d"]:
    """Centred clipping: ``v <- v + mean_i (x_i - v) min(1, tau / ||x_i - v||)``.

    With ``tolerance`` it goes on to the fixed point of this formula, by the reweighted step
    ``v <- sum_i w_i x_i / sum_i w_i`` with ``w_i = min(1, tau / ||x_i - v||)``, which has the same
    fixed point and needs far fewer iterations.

    Formula: v <- v + (1 / n) sum_i (x_i - v) min(1, tau / ||x_i - v||).

    Args:
        rows: one gradient per row.
        num_corrupt: not used.
        tau: clipping radius, > 0; ``inf`` is the mean; ``auto``: the (lower) median distance of
            the rows to the start. A run with ``calibrated`` passes a number, the (lower) median
            distance of the true gradients of step 0 to their coordinate-wise median; elsewhere it
            is ``auto``.
        iterations: of the formula, at least 1 (the paper's L); null: 1. With ``tolerance`` the most
            of them; null: 1000.
        start: v before the first iteration. Without a previous result ``previous`` starts at the
            coordinate-wise median and ``previous_or_zero`` (ByzFL) at zero.
        tolerance: stop where ``||sum_i w_i (x_i - v)||`` is at most this share of
            ``sum_i w_i ||x_i - v||``, > 0; null: after ``iterations``.
        previous: the result of the step before; a run passes it.

    Raises:
        ValueError: unless ``tau > 0``, ``iterations >= 1``, ``tolerance > 0`` and ``previous`` is
            finite and as long as a row.

    Source: Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization",
    ICML 2021, Section 4; to the fixed point as in BTARD (Gorbunov et al., ICML 2022). The automatic
    radius and the reweighted step are our own.
    """
    most = iterations if iterations is not None else 1 if tolerance is None else 1000
    is_positive = isinstance(tau, str) or tau > 0
    if most < 1 or not is_positive or not (tolerance is None or tolerance > 0):
        raise ValueError(
            f"needs tau > 0, iterations >= 1 and tolerance > 0, got {tau=} {iterations=} "
            f"{tolerance=}"
        )
    if previous is not None and (previous.shape != rows[0].shape or not is_finite(previous)):
        raise ValueError(f"needs a finite previous of {rows.shape[1]} entries, as the rows have")
    extra = previous if start.startswith("previous") else None
    if extra is None and start in ("previous", "median"):
        extra = coordinate_median(rows)
    geometry = Geometry.of(rows, None if extra is None else extra[None])
    weights = torch.zeros(geometry.num_rows + 1, dtype=torch.float64)
    if start == "mean":
        weights[:-1] = 1 / len(rows)
        reach = _reach(geometry.gram, weights)
    else:  # from one of the points: a single pass
        weights[-2 if extra is not None else -1] = 1
        reach = geometry.norms if extra is None else geometry.distances_from(len(rows))
    reach = reach[: len(rows)]
    radius = float(reach.median()) if isinstance(tau, str) else float(tau) / geometry.scale
    if tolerance is None:
        weights = _clipped(geometry, weights, reach, radius, most)
    else:
        weights = fixed_point(geometry.gram, weights, len(rows), radius, most, tolerance).weights
    result = weighted_sum(weights[: len(rows)], rows)
    return result if extra is None else result + weights[-2].to(result.dtype) * extra


def _clipped(
    geometry: Geometry, weights: Tensor, reach: Tensor, radius: float, iterations: int
) -> Float[Tensor, " p"]:
    """Apply the paper's formula a number of times; ``reach`` are the first distances."""
    num_rows = len(reach)
    for turn in range(iterations):
        if turn > 0:
            reach = _reach(geometry.gram, weights)[:num_rows]
        share = torch.where(reach > radius, radius / reach, 1.0) / num_rows
        weights = weights * (1 - share.sum())
        weights[:num_rows] += share
    return weights


class FixedPoint(NamedTuple):
    """Where centred clipping ends.

    Attributes:
        weights: ``[p]``, of the points; they add up to 1.
        distances: ``[n]``, of the rows to it.
        residual: ``||sum_i w_i (x_i - v)|| / sum_i w_i ||x_i - v||``, 0 where all rows are there.
        iterations: that led to it.
    """

    weights: Float[Tensor, " p"]
    distances: Float[Tensor, " n"]
    residual: float
    iterations: int


def fixed_point(
    gram: Float[Tensor, "p p"],
    weights: Float[Tensor, " p"],
    num_rows: int,
    radius: float,
    iterations: int,
    tolerance: float,
) -> FixedPoint:
    """Iterate the reweighted step on the weights of points, at least once, to a small residual.

    The sum of Huber's function of the distances, whose least point this is, falls at each step.

    Args:
        gram: inner products of n rows and of other points.
        weights: of the points at the start, adding up to 1.
        num_rows: n, the first of the points.
        radius: tau, > 0.
        iterations: the most of them, at least 1.
        tolerance: of the residual, > 0.
    """
    done = 0
    while True:
        reach = _reach(gram, weights)[:num_rows]
        pull = torch.where(reach > radius, radius / reach, 1.0)
        moved = torch.zeros_like(weights)
        moved[:num_rows] = pull / pull.sum()
        shift = moved - weights
        length, reached = (shift @ gram @ shift).clamp_min(0).sqrt(), (pull * reach).sum()
        residual = float(length * pull.sum() / reached) if float(reached) > 0 else 0.0
        if (done and residual <= tolerance) or done == iterations:
            return FixedPoint(weights, reach, residual, done)
        weights, done = moved, done + 1


def _reach(gram: Float[Tensor, "p p"], weights: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Distances of the points to their weighted mean."""
    seen = gram @ weights
    return (gram.diagonal() - 2 * seen + weights @ seen).clamp_min(0).sqrt()
