"""Which rows have a NaN or Inf."""

import math

import torch
from torch import Tensor

from byzshield_exp.rows.parallel import chunk_for, each

_CHUNK = 1 << 16  # coordinates looked at together


def is_finite(values: Tensor) -> bool:
    """Whether no entry is NaN or Inf; without a temporary of their size."""
    if math.isfinite(float(values.sum())):  # a NaN or Inf would show
        return True
    low, high = values.aminmax()  # or the sum was too large
    return bool(low.isfinite() & high.isfinite())


def finite_rows(rows: Tensor) -> Tensor:
    """``[n]`` bool: the rows without NaN and Inf."""
    chunk = chunk_for(rows.device, _CHUNK)

    def look(start: int) -> Tensor:
        low, high = rows[:, start : start + chunk].aminmax(dim=1)
        return low.isfinite() & high.isfinite()

    return torch.stack(each(look, range(0, rows.shape[1], chunk), rows.device)).all(dim=0)
