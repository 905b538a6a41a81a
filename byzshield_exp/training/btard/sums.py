"""The numbers by which peers check an aggregate that they cannot compute.

At the fixed point of centred clipping the clipped differences of the rows to it add up to zero. So
do their products with a random direction, which each peer can compute of its own row. They are
arrays of NumPy, as they are posted: its sum along a row has the same bits whatever other rows there
are.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard.clip import Clipping

_CHUNK = 1 << 14  # coordinates added up at a time: fixed, as it decides the bits
_ROUNDING, _SMALLEST = 2.0**-24, 2.0**-126  # of float32: relative, down to this number
_DEVIATIONS = 6.0  # of a normal number: what is above has a chance of 2e-9
_SUMMING = 1e-11  # relative, of float64 sums


def sums(
    rows: Sequence[Float[Tensor, " c"]],
    middle: Float[Tensor, " c"],
    directions: Float[Tensor, "k c"],
    tau: float,
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, " m"]]:
    """For each row ``s``, its clipped difference to the centre in each direction, and ``nu``.

    ``nu = ||row - middle||`` and ``s = <direction, row - middle> min(1, tau / nu)``; both in
    float64, with bits that depend on the row, the centre and the directions alone.

    Args:
        rows: m of them, on the CPU.
        middle: the aggregate, on the CPU.
        directions: k of them.
        tau: clipping radius.
    """
    squares, products = np.zeros(len(rows)), np.zeros((len(rows), len(directions)))
    mine, centre, ways = [row.numpy() for row in rows], middle.numpy(), directions.numpy()
    for start in range(0, len(centre) if mine else 0, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        apart = np.stack([row[chunk] for row in mine]).astype(np.float64)
        apart -= centre[chunk]
        for place, way in enumerate(ways):
            products[:, place] += (apart * way[chunk]).sum(axis=1)
        squares += np.square(apart, out=apart).sum(axis=1)
    lengths = np.sqrt(squares)
    far = lengths > tau
    products[far] *= (tau / lengths[far])[:, None]
    return products, lengths


def lengths_of(vector: Float[Tensor, " d"], parts: Sequence[slice]) -> Float[np.ndarray, " p"]:
    """Lengths of the parts of an aggregate, 0 where it is not finite.

    NumPy's sum has the same bits with any number of threads, unlike its ``linalg.norm``.

    Args:
        vector: on the CPU.
        parts: of its entries.
    """
    pieces = [vector[where].numpy() for where in parts]
    squares = [np.square(one, dtype=np.float64).sum() for one in pieces]  # float32 overflows
    found: np.ndarray = np.sqrt(np.nan_to_num(squares))
    return found


def numbers(
    pieces: Sequence[Float[Tensor, " c"]],
    finite: Sequence[bool],
    middle: Float[Tensor, " c"],
    directions: Float[Tensor, "k c"],
    tau: float,
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, " m"]]:
    """``s`` and ``nu`` as they are posted; zeros of a row that is not finite."""
    s, nu = np.zeros((len(pieces), len(directions))), np.zeros(len(pieces))
    there = [place for place, flag in enumerate(finite) if flag]
    if there and is_finite(middle):
        s[there], nu[there] = sums([pieces[place] for place in there], middle, directions, tau)
    return s, nu


def unbalanced(
    s: Float[np.ndarray, "n p k"],
    nu: Float[np.ndarray, "n p"],
    counted: Bool[np.ndarray, "n p"],
    norms: Float[np.ndarray, " p"],
    clipping: Clipping,
) -> Bool[np.ndarray, " p"]:
    """V2: the parts whose sums do not add up to zero in some direction.

    Up to six standard deviations of what is allowed: the residual at which clipping may end, and
    the rounding of the aggregate to float32, of which a row that is clipped sees its share. Both
    follow from what all peers know.

    Args:
        s: as posted.
        nu: as posted.
        counted: the rows that take part: those that are finite.
        norms: of the aggregates.
        clipping: as all peers know it.
    """
    taken = np.where(counted[:, :, None], s, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):  # a liar may post anything
        within = np.minimum(nu, clipping.tau).sum(axis=0, where=counted)
        rounding = _ROUNDING * norms + _SMALLEST
        shares = clipping.tau / np.maximum(nu - rounding, clipping.tau)
        shares = np.where(math.isinf(clipping.tau), 1.0, shares)
        bound = _DEVIATIONS * (
            clipping.tolerance * within + shares.sum(axis=0, where=counted) * rounding
        )
        slack = _SUMMING * np.abs(taken).sum(axis=0)
        balanced = np.abs(taken.sum(axis=0)) <= bound[:, None] + slack
    found: np.ndarray = ~balanced.all(axis=1)
    return found


def suspicious(
    nu: Float[np.ndarray, "n p"], counted: Bool[np.ndarray, "n p"], delta_max: float
) -> Bool[np.ndarray, " p"]:
    """V3: the parts from which more than half of the peers are farther than ``delta_max``."""
    if math.isinf(delta_max):
        return np.zeros(nu.shape[1], dtype=bool)
    found: np.ndarray = 2 * ((nu > delta_max) & counted).sum(axis=0) > len(nu)
    return found
