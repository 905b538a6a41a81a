"""What a peer makes of the rows of its part."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.coordinates import coordinate_median
from byzshield_exp.aggregators.geometric import fixed_point
from byzshield_exp.aggregators.geometry import Geometry

_CHUNK = 1 << 16  # coordinates


@dataclass(frozen=True)
class Clipping:
    """Centred clipping to its fixed point, as all peers know it.

    Attributes:
        tau: clipping radius, > 0; ``inf``: the mean.
        tolerance: of the relative residual, > 0.
        iterations: the most of them, at least 1.
    """

    tau: float
    tolerance: float
    iterations: int = 1000


@dataclass(frozen=True, eq=False)
class Centre:
    """The aggregate of a part.

    Attributes:
        point: ``[c]``, float32; NaN where no row was finite.
        residual: relative, as of :class:`~byzshield_exp.aggregators.geometric.FixedPoint`.
        iterations: that led to it.
        clipped: rows beyond ``tau``.
    """

    point: Float[Tensor, " c"]
    residual: float = 0.0
    iterations: int = 0
    clipped: int = 0


def centre(rows: Float[Tensor, "n c"], clipping: Clipping) -> Centre:
    """Clip rows, all finite, about their centre; with no rows or no coordinates there is none.

    The weights are found in the rows' inner products, and the weighted sum is in float64, so that
    what is left of the residual is ``tolerance`` and the rounding of the result. The bits depend on
    the rows alone.
    """
    if len(rows) == 0:
        return Centre(rows.new_full((rows.shape[1],), math.nan))
    if rows.shape[1] == 0:
        return Centre(rows.new_empty(0))
    if math.isinf(clipping.tau):
        share = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
        return Centre(weighted(share, rows))
    geometry = Geometry.of(rows, coordinate_median(rows)[None])
    start = torch.zeros(len(rows) + 2, dtype=torch.float64)
    start[-2] = 1
    found = fixed_point(
        geometry.gram, start, len(rows), clipping.tau / geometry.scale, clipping.iterations,
        clipping.tolerance,
    )  # fmt: skip
    return Centre(
        weighted(found.weights[: len(rows)], rows),
        found.residual,
        found.iterations,
        int((found.distances * geometry.scale > clipping.tau).sum()),
    )


def weighted(weights: Float[Tensor, " n"], rows: Float[Tensor, "n c"]) -> Float[Tensor, " c"]:
    """``weights @ rows``, row by row in float64, rounded once to the type of the rows."""
    result = rows.new_empty(rows.shape[1])
    for start in range(0, rows.shape[1], _CHUNK):
        part = rows[:, start : start + _CHUNK]
        total = torch.zeros(part.shape[1], dtype=torch.float64, device=rows.device)
        for weight, row in zip(weights.tolist(), part, strict=True):
            total.add_(row, alpha=weight)
        result[start : start + _CHUNK] = total
    return result
