"""Equality up to rounding, for workers whose gradients differ in the last bits."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byzshield_exp.rows.parallel import each
from byzshield_exp.votes.bytewise import majority
from byzshield_exp.votes.counting import ABSENT, as_labels, device_of, is_finite
from byzshield_exp.votes.vote import vote_traits

_CHUNK = 1 << 15  # entries of a row that stay in the cache
_LEAST = 1e-250  # of a squared norm


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    check_rtol(arguments["rtol"])


@vote_traits(check=_check_arguments)
def tolerant(
    replicas: Sequence[Sequence[Tensor | None]],
    rtol: float = 1e-5,
    gradient_size: int | None = None,
) -> Int[Tensor, "f r"]:
    """Label replicas by their relative distance, for hardware that does not repeat its bits.

    Two replicas agree when ``||a - b|| <= rtol * max(||a||, ||b||)`` (L2, summed in float64). That
    is not transitive: a class is a replica, its *centre*, and all that agree with it. The first
    centre is the replica around which a strict majority of those present lies nearest, if that
    majority agrees with it; otherwise the one with which most agree, then the nearest to these,
    then the first place. Those that are left form further classes in the same way.

    So the winner is a row as it was sent, with which ``needed`` replicas agree. If honest replicas
    are a majority of those present, and agree, it is as near to an honest row as these are to each
    other: where they are equal to the bit, no liar within ``rtol`` wins. Without such a majority
    liars win as in any vote; a lie that needs honest replicas to reach ``needed`` lies within
    ``rtol`` times the norm of one of them. Equally good centres are decided by their places.

    Rows with NaN or Inf agree with those of equal bytes alone. Running statistics behind gradients
    are compared separately: they are larger, and would hide differences of the gradients.

    Args:
        replicas: for each of f files its r rows ``[d]``; None: it did not come.
        rtol: from 0 (equal values). Honest GPUs differ by less than 1e-6, lies by 1 and more.
        gradient_size: entries of a row before its running statistics; None: all.

    Returns:
        ``[f, r]``; a replica's label is the place of the centre of its class.

    Raises:
        ValueError: if ``rtol`` is negative or not a number.

    Source: the test, with 1e-5, is that of Konstantinidis and Ramamoorthy for Aspis (arXiv
    2108.02416 and 2208.08085) on GPUs; the classes are ours.
    """
    check_rtol(rtol)
    same = majority(replicas)
    finite = is_finite(replicas, same)

    def look(file: int) -> list[int]:
        marks, usable = same[file].tolist(), finite[file].tolist()
        apart = _distances(replicas[file], marks, usable, gradient_size)
        return _labels(apart, same[file].tolist(), rtol)

    return as_labels(each(look, range(len(replicas)), device_of(replicas)))


def check_rtol(rtol: float) -> None:
    """Check a relative tolerance.

    Raises:
        ValueError: if it is negative or not a number.
    """
    if not 0 <= rtol < math.inf:
        raise ValueError(f"rtol={rtol} must be a number from 0")


def _labels(apart: list[list[float]], same: list[int], rtol: float) -> list[int]:
    """The centre of each replica's class."""
    labels = [ABSENT] * len(same)
    left = [place for place, mark in enumerate(same) if mark != ABSENT]

    def rank(place: int) -> tuple[float, int, float, int]:
        near = sorted(apart[place][other] for other in left)
        agree = [distance for distance in near if distance <= rtol]
        reach = near[len(left) // 2]  # a strict majority lies within
        return reach if reach <= rtol else math.inf, -len(agree), sum(agree), place

    while left:
        centre = min(left, key=rank)
        for place in left:
            if apart[centre][place] <= rtol:
                labels[place] = centre
        left = [place for place in left if labels[place] == ABSENT]
    return labels


def _distances(
    rows: Sequence[Tensor | None], same: list[int], finite: list[bool], gradient_size: int | None
) -> list[list[float]]:
    """Relative distances of the replicas of a file; rows of equal bytes are measured once."""
    apart = [[0.0 if a == b else math.inf for b in same] for a in same]
    kinds: dict[object, dict[int, Tensor]] = {}
    for place, row in enumerate(rows):
        if row is not None and same[place] == place and finite[place]:
            kinds.setdefault((row.dtype, row.shape), {})[place] = row.detach()
    for usable in kinds.values():
        parts = [[row[:gradient_size] for row in usable.values()]]
        if gradient_size is not None:
            parts.append([row[gradient_size:] for row in usable.values()])
        distances = np.max([relative_distances(part) for part in parts], axis=0)
        at = {place: number for number, place in enumerate(usable)}
        for place, mark in enumerate(same):
            for peer, its in enumerate(same):
                if mark in at and its in at:
                    apart[place][peer] = distances[at[mark]][at[its]]
    return apart


def relative_distances(rows: Sequence[Float[Tensor, " d"]]) -> list[list[float]]:
    """``||a - b|| / max(||a||, ||b||)`` of finite rows, ``[m, m]``; 0 only if they are equal."""
    squares = _squares(rows)
    found = [[0.0] * len(rows) for _ in rows]
    for i, j in itertools.combinations(range(len(rows)), 2):
        square, largest = squares[i][j], max(squares[i][i], squares[j][j])
        if (
            not _LEAST < largest < 1 / _LEAST
        ):  # zero, or float64 rows whose squares over- or underflow
            pair = [_scaled(rows[i], rows[j]), _scaled(rows[j], rows[i])]
            (norm, square), (_, other) = _squares(pair)
            largest = max(norm, other)
        distance = math.sqrt(square / largest) if square > 0 else 0.0
        if distance == 0 and not torch.equal(rows[i], rows[j]):  # so near that the square is 0
            distance = math.ulp(0.0)
        found[i][j] = found[j][i] = distance
    return found


def _squares(rows: Sequence[Tensor]) -> list[list[float]]:
    """Squared distances ``[m, m]`` above the diagonal, squared norms on it; summed in float64."""
    row = rows[0] if rows else torch.empty(0)
    step = max(1, _CHUNK if row.device.type == "cpu" else row.numel())
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=row.device)
    for start in range(0, row.numel(), step):
        block = torch.stack([row[start : start + step] for row in rows]).double()
        apart = torch.empty_like(block[0])
        for i, j in itertools.combinations_with_replacement(range(len(rows)), 2):
            part = block[i] if i == j else torch.sub(block[i], block[j], out=apart)
            total[i, j] += part.dot(part)
    return cast(list[list[float]], total.tolist())


def _scaled(row: Tensor, other: Tensor) -> Tensor:
    """Scale a row by a power of two so that neither row's squares overflow or vanish."""
    largest = max(float(one.abs().max()) for one in (row, other))
    return row.double() * 2.0 ** -max(-1000, min(1000, math.frexp(largest)[1]))
