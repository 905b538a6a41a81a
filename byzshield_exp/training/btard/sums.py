"""The numbers by which peers check an aggregate that they cannot compute.

At the fixed point of centred clipping the clipped differences of the rows to it add up to zero. So
do their products with a random direction, which each peer can compute of its own row.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard.clip import Clipping

_CHUNK = 1 << 14  # coordinates added up at a time: fixed, as it decides the bits
_ROUNDING = 2.0**-24  # of float32
_DEVIATIONS = 6.0  # of a normal number: what is above has a chance of 2e-9
_SUMMING = 1e-11  # relative, of float64 sums


def tree_sum(values: Float[Tensor, "m c"]) -> Float[Tensor, " m"]:
    """Add up each row in a fixed order, whatever m is: halves onto halves. ``values`` is lost."""
    while values.shape[1] > 1:
        half = (values.shape[1] + 1) // 2
        values[:, : values.shape[1] - half] += values[:, half:]
        values = values[:, :half]
    return values.sum(dim=1)


def sums(
    rows: Sequence[Float[Tensor, " c"]],
    middle: Float[Tensor, " c"],
    directions: Float[Tensor, "k c"],
    tau: float,
) -> tuple[Float[Tensor, "m k"], Float[Tensor, " m"]]:
    """For each row ``s``, its clipped difference to the centre in each direction, and ``nu``.

    ``nu = ||row - middle||`` and ``s = <direction, row - middle> min(1, tau / nu)``; both in
    float64, with bits that depend on the row, the centre and the directions alone.

    Args:
        rows: m of them.
        middle: the aggregate.
        directions: k of them.
        tau: clipping radius.
    """
    count, size = len(rows), len(middle)
    squares = torch.zeros(count, dtype=torch.float64)
    products = torch.zeros(count, len(directions), dtype=torch.float64)
    for start in range(0, size if count else 0, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        apart = torch.stack([row[chunk] for row in rows]).cpu().double()
        apart -= middle[chunk].cpu()
        for place, direction in enumerate(directions):
            products[:, place] += tree_sum(apart * direction[chunk])
        squares += tree_sum(apart.square_())
    lengths = squares.sqrt()
    shares = torch.where(lengths > tau, tau / lengths, 1.0)
    return products * shares[:, None], lengths


def numbers(
    pieces: Sequence[Float[Tensor, " c"]],
    finite: Sequence[bool],
    middle: Float[Tensor, " c"],
    directions: Float[Tensor, "k c"],
    tau: float,
) -> tuple[np.ndarray, np.ndarray]:
    """``s [m, k]`` and ``nu [m]`` as they are posted; zeros of a row that is not finite."""
    s, nu = np.zeros((len(pieces), len(directions))), np.zeros(len(pieces))
    there = [place for place, flag in enumerate(finite) if flag]
    if there and is_finite(middle):
        found = sums([pieces[place] for place in there], middle, directions, tau)
        s[there], nu[there] = found[0].numpy(), found[1].numpy()
    return s, nu


def unbalanced(
    s: Float[Tensor, "n p k"],
    nu: Float[Tensor, "n p"],
    counted: Bool[Tensor, "n p"],
    norms: Float[Tensor, " p"],
    clipping: Clipping,
) -> Bool[Tensor, " p"]:
    """V2: the parts whose sums do not add up to zero in some direction.

    Up to six standard deviations of what is allowed: the residual at which clipping may end, and
    the rounding of the aggregate to float32. Both follow from what all peers know.

    Args:
        s: as posted.
        nu: as posted.
        counted: the rows that take part: those that are finite.
        norms: of the aggregates.
        clipping: as all peers know it.
    """
    within = torch.where(counted, nu.clamp(max=clipping.tau), 0.0).sum(dim=0)
    rounding = counted.sum(dim=0) * _ROUNDING * norms
    bound = _DEVIATIONS * (clipping.tolerance * within + rounding)
    taken = torch.where(counted[:, :, None], s, 0.0)
    slack = _SUMMING * taken.abs().sum(dim=0)
    return ~(taken.sum(dim=0).abs() <= bound[:, None] + slack).all(dim=1)


def suspicious(
    nu: Float[Tensor, "n p"], counted: Bool[Tensor, "n p"], delta_max: float
) -> Bool[Tensor, " p"]:
    """V3: the parts from which more than half of the peers are farther than ``delta_max``."""
    if math.isinf(delta_max):
        return torch.zeros(nu.shape[1], dtype=torch.bool)
    return 2 * ((nu > delta_max) & counted).sum(dim=0) > nu.shape[0]


def as_tensor(values: np.ndarray) -> Tensor:
    """A copy of posted numbers in this machine's byte order."""
    return torch.from_numpy(np.array(values, dtype=np.float64))
