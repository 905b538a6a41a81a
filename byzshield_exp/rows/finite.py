"""Which rows have a NaN or Inf."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from byzshield_exp.rows.parallel import chunk_for, each

_CHUNK = 1 << 16  # coordinates checked at a time, to stay in the cache


def is_finite(values: Tensor) -> bool:
    """Whether no entry is NaN or Inf; without a temporary as large as the tensor."""
    if math.isfinite(float(values.sum())):  # a NaN or Inf makes the sum one
        return True
    low, high = values.aminmax()  # a sum of finite entries may overflow
    return bool(low.isfinite() & high.isfinite())


def are_finite(rows: Sequence[Tensor]) -> list[bool]:
    """For each tensor as :func:`is_finite`; a GPU is waited for once, and again for odd ones."""
    if not rows:
        return []
    sums = torch.stack([row.sum().double() for row in rows]).tolist()
    return [math.isfinite(total) or is_finite(row) for total, row in zip(sums, rows, strict=True)]


def finite_rows(rows: Tensor) -> Tensor:
    """``[n]`` bool: the rows without NaN and Inf."""
    chunk = chunk_for(rows.device, _CHUNK)

    def look(start: int) -> Tensor:
        low, high = rows[:, start : start + chunk].aminmax(dim=1)
        return low.isfinite() & high.isfinite()

    return torch.stack(each(look, range(0, rows.shape[1], chunk), rows.device)).all(dim=0)
