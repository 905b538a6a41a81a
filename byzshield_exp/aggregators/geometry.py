"""Inner products and distances between rows, in float64, at any scale."""

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.points import CANCELLED, Points
from byzshield_exp.aggregators.policy import Unclean, check_rows, set_aside
from byzshield_exp.rows.finite import is_finite
from byzshield_exp.rows.parallel import chunk_for, each, new_rows, sent

_CHUNK, _WIDE = 1 << 15, 1 << 18  # coordinates


class Geometry:
    """The rows and the origin as ``n + 1`` points; the origin is the last one.

    All results are on the CPU. With ``n x n`` numbers a GPU has little to do, and each decision
    about them would wait for it.

    Attributes:
        num_rows: n.
        scale: distances are in units of this power of two (1.0 but for extreme float64 rows).
    """

    def __init__(
        self,
        num_rows: int,
        gram: Callable[[], Tensor],
        norms: Callable[[], Tensor] | None = None,
        refine: Callable[[Tensor, Tensor], Tensor] | None = None,
        distances_from: Callable[[int], Tensor] | None = None,
        scale: float = 1.0,
    ) -> None:
        self.num_rows = num_rows
        self.scale = scale
        self._make_gram, self._make_norms, self._refine = gram, norms, refine
        self._make_distances_from = distances_from

    @classmethod
    def of(cls, rows: Float[Tensor, "m d"], extra: Tensor | None = None) -> "Geometry":
        """The geometry of rows and of more points ``[e, d]``, computed on first use."""
        points = Points(rows, extra)
        return cls(
            points.count, points.centred_gram, points.norms, points.refined,
            points.distances_from, points.scale,
        )  # fmt: skip

    @cached_property
    def gram(self) -> Float[Tensor, "n_and_origin n_and_origin"]:
        """Inner products of the points, as seen from one of them."""
        return self._make_gram()

    @cached_property
    def squared(self) -> Float[Tensor, "n n"]:
        """``||rows[i] - rows[j]||^2``."""
        return self._all_squared[:-1, :-1]

    @cached_property
    def norms(self) -> Float[Tensor, " n"]:
        """``||rows[i]||``."""
        if self._make_norms is not None:
            return self._make_norms()
        return self._all_squared[-1, :-1].sqrt()

    def distances_from(self, row: int) -> Float[Tensor, " n"]:
        """``||rows[i] - rows[row]||``, where no other distances are needed."""
        if self._make_distances_from is not None:
            return self._make_distances_from(row)
        return self.squared[row].sqrt()

    def mixed(self, weights: Float[Tensor, "m n"]) -> "Geometry":
        """The geometry of ``weights @ rows``."""

        def gram() -> Tensor:
            share = torch.cat([weights, 1 - weights.sum(dim=1, keepdim=True)], dim=1)
            last = torch.zeros_like(share[:1])
            last[0, -1] = 1
            points = torch.cat([share, last])
            return points @ self.gram @ points.T

        return Geometry(len(weights), gram, scale=self.scale)

    @cached_property
    def _all_squared(self) -> Tensor:
        gram = self.gram
        sizes = gram.diagonal()
        total = sizes[:, None] + sizes[None]
        squared = (total - 2 * gram).clamp_min(0).fill_diagonal_(0)
        squared = torch.minimum(squared, squared.T)
        wrong = (squared < CANCELLED * total).fill_diagonal_(False)
        if self._refine is None or not bool(wrong.any()):
            return squared
        return self._refine(squared, wrong)


def squared_distances(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """``||rows[i] - rows[j]||^2`` in float64, right where rows are near each other and far out.

    Raises:
        ValueError: unless ``rows`` is a floating point ``[n, d]``.
        NonFiniteRows: if a row has NaN or Inf.
    """
    check_rows(rows, 0)
    geometry = Geometry.of(rows)
    try:
        return sent(geometry.squared * geometry.scale**2, rows.device)
    except Unclean:
        set_aside(rows, 0)
        raise


def weighted_sum(weights: Float[Tensor, " n"], rows: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """``weights @ rows`` in the type of the rows (half types are summed in float32).

    The weights are on the CPU; a GPU is waited for once.

    Raises:
        Unclean: if the result is not finite.
    """
    largest = weights.max()
    same = weights == largest
    if bool((same | (weights == 0)).all()):  # a mean: dividing once rounds no weight
        result = rows[int(same.nonzero())].clone() if int(same.sum()) == 1 else None
        result = _sum(same.double(), rows) if result is None else result
        result = result if float(largest) == 1 else result.div_(1 / float(largest))
        if is_finite(result):
            return result
    result = _sum(weights, rows)
    if not is_finite(result):
        raise Unclean
    return result


def _sum(weights: Tensor, rows: Tensor) -> Tensor:
    """Add up in fixed chunks: the bits of one large product would depend on the threads."""
    is_wide = rows.dtype in (torch.float32, torch.float64)
    shares = sent(weights.to(rows.dtype if is_wide else torch.float32), rows.device)
    result = new_rows(1, rows)[0]

    def fill(start: int) -> None:
        part, out = rows[:, start : start + _WIDE], result[start : start + _WIDE]
        if is_wide:
            torch.mv(part.T, shares, out=out)
        else:
            out.copy_(shares @ part.float())

    each(fill, range(0, rows.shape[1], _WIDE), rows.device)
    return result


def mixed_rows(weights: Float[Tensor, "m n"], rows: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """``weights @ rows`` in the type of the rows, without another copy of them.

    The weights are on the CPU; a GPU is waited for once.

    Raises:
        Unclean: if the result is not finite.
    """
    result, chunk = new_rows(len(weights), rows), chunk_for(rows.device, 2 * _CHUNK)
    is_wide = rows.dtype in (torch.float32, torch.float64)
    shares = weights.to(rows.dtype if is_wide else torch.float32)
    factors = shares.diag()
    is_scaling = len(shares) == shares.shape[1] and torch.equal(shares, factors.diag())
    shares, factors = sent(shares, rows.device), sent(factors, rows.device)

    def fill(start: int) -> Tensor:
        part, out = rows[:, start : start + chunk], result[:, start : start + chunk]
        if not is_wide:
            out.copy_(shares @ part.float())
        elif is_scaling:  # rows that are only scaled are scaled one by one
            torch.mul(factors[:, None], part, out=out)
        else:
            torch.mm(shares, part, out=out)
        return out.sum()

    sums = torch.stack(each(fill, range(0, rows.shape[1], chunk), rows.device))
    if not is_finite(sums) and not is_finite(result):
        raise Unclean
    return result
