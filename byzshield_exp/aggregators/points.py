"""Sums over the coordinates of rows, in float64 and in fixed chunks."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byzshield_exp.aggregators.policy import Unclean
from byzshield_exp.rows.parallel import Scratch, chunk_for, each, sent

CANCELLED = 1e-7  # a distance below this share of the inner products is computed again
_CHUNK = 1 << 15  # fixed: the bits of a sum depend on where it is cut
_SAMPLE = 1 << 12  # coordinates looked at to choose the centre
_SAFE = 1e70  # float64 rows beyond this (or below its inverse) are scaled before they are squared
_SQUARES = 1e-15, 1e15  # norms whose squares float32 can add up


class Points:
    """Rows ``[m, d]`` and perhaps more, ``[e, d]``; the origin counts as the last point.

    Attributes:
        count: rows and extra ones, without the origin.
        scale: distances are in units of this power of two (1.0 but for extreme float64 rows).
    """

    def __init__(self, rows: Float[Tensor, "m d"], extra: Tensor | None = None) -> None:
        self._rows, self._extra = rows, extra
        self.count = len(rows) + (0 if extra is None else len(extra))
        self.scale = _scale(rows)
        self._chunk = chunk_for(rows.device, _CHUNK)

    def norms(self) -> Float[Tensor, " n"]:
        """``||point||``.

        Raises:
            Unclean: if a row is not finite.
        """
        return self._lengths(None)

    def distances_from(self, centre: int) -> Float[Tensor, " n"]:
        """``||point - point[centre]||``.

        Raises:
            Unclean: if a row is not finite.
        """
        return self._lengths(centre)

    def _lengths(self, centre: int | None) -> Tensor:
        """Lengths of rows; squared in the rows' type where that is safe, added up in float64."""
        low, high = _SQUARES

        def squares(start: int) -> Tensor:
            part = self._part(start)
            seen = part if centre is None else part - part[centre]
            sizes = torch.linalg.vector_norm(seen, dim=1).double()
            usual = (sizes > low) & (sizes < high)
            if part.dtype == torch.float64 or int(usual.sum()) < self.count - (centre is not None):
                wide = part.double() / self.scale
                wide = wide if centre is None else wide - wide[centre]
                sizes = torch.linalg.vector_norm(wide, dim=1)
            return torch.square(sizes)

        return torch.sqrt(self._total(squares))

    def centred_gram(self) -> Float[Tensor, "n_and_origin n_and_origin"]:
        """Inner products of points and origin, seen from the row nearest to most others.

        Differences, products and sums are in float64, on a GPU too (its settings for tf32 concern
        float32 alone): right up to ``d * 2**-53`` times the product of the two points' distances
        from that row.

        Raises:
            Unclean: if a row is not finite.
        """
        centre, scratch = self._middle(), Scratch()

        def products(start: int) -> Tensor:
            part = self._part(start)
            points = scratch.rows(self.count + 1, part.shape[1], part.device)
            points[:-1].copy_(part)
            points[-1] = 0
            if self.scale != 1:
                points /= self.scale
            points -= points[centre].clone()
            return points @ points.T

        return self._total(products)

    def refined(
        self, squared: Float[Tensor, "p p"], wrong: Bool[Tensor, "p p"]
    ) -> Float[Tensor, "p p"]:
        """Distances of points near each other but far from the centre, computed again.

        Each such group is measured from one of its own points, again where that is too coarse.
        """
        squared, wrong = squared.clone(), wrong.clone()
        while bool(wrong.any()):
            first = int(wrong.any(dim=1).nonzero()[0])
            near = wrong[first].nonzero().flatten()
            gram = self._seen_from(first, near)
            sizes = gram.diagonal()
            squared[first, near] = squared[near, first] = sizes
            wrong[first] = wrong[:, first] = False
            total = sizes[:, None] + sizes[None]
            apart = (total - 2 * gram).clamp_min(0)
            clear = (apart >= CANCELLED * total) & wrong[near][:, near]
            rest = near[:, None].expand_as(clear)[clear], near[None].expand_as(clear)[clear]
            squared[rest] = apart[clear]
            wrong[rest] = False
        return torch.minimum(squared, squared.T)

    def _part(self, start: int) -> Tensor:
        """The points without the origin, one chunk of coordinates."""
        part = self._rows[:, start : start + self._chunk]
        part = part if part.dtype in (torch.float32, torch.float64) else part.float()
        if self._extra is not None:
            more = self._extra[:, start : start + self._chunk].to(part.dtype)
            part = torch.cat([part, more])
        return part

    def _total(self, summand: Callable[[int], Tensor]) -> Tensor:
        """Add up all chunks in their order, which decides the bits; the sum comes to the CPU."""
        starts = range(0, self._rows.shape[1], self._chunk)
        total = torch.stack(each(summand, starts, self._rows.device)).sum(dim=0).cpu()
        if not bool(total.isfinite().all()):
            raise Unclean
        return total

    def _middle(self) -> int:
        """The row whose nearest half of the others is closest, on a sample of the coordinates."""
        sample = self._rows[:, :: max(1, self._rows.shape[1] // _SAMPLE)].double() / self.scale
        apart = torch.cdist(sample, sample, compute_mode="donot_use_mm_for_euclid_dist")
        apart = apart.cpu().nan_to_num(nan=torch.inf)  # a GPU has no deterministic median
        return int(apart.median(dim=1).values.argmin())

    def _seen_from(self, centre: int, others: Tensor) -> Tensor:
        """Inner products of ``others - centre``; the last row and column are the origin's."""
        chosen = torch.cat([others, others.new_tensor([centre])])
        is_point = chosen < self.count  # but the origin, whose coordinates are zeros
        places = sent(is_point.nonzero().flatten(), self._rows.device)
        given = sent(chosen[is_point], self._rows.device)

        def products(start: int) -> Tensor:
            part = self._part(start)
            points = part.new_zeros((len(chosen), part.shape[1]), dtype=torch.float64)
            points[places] = part[given].double() / self.scale
            seen = points[:-1] - points[-1]
            return seen @ seen.T

        return self._total(products)


def _scale(rows: Tensor) -> float:
    if rows.dtype != torch.float64:
        return 1.0
    low, high = rows.aminmax()
    largest = float(torch.maximum(-low, high))
    if not 0 < largest < math.inf or 1 / _SAFE < largest < _SAFE:
        return 1.0
    return math.ldexp(1.0, math.frexp(largest)[1] - 1)
