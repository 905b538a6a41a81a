"""One policy for bad input: rows that are not finite are set aside and count as corrupt."""

from typing import Any

import numpy as np
from torch import Tensor

from byzshield_exp.rows.finite import finite_rows


class NonFiniteRows(ValueError):
    """More rows with NaN or Inf than may be corrupt.

    Attributes:
        rows: their numbers, ascending.
    """

    def __init__(self, rows: tuple[int, ...], num_rows: int, num_corrupt: int) -> None:
        super().__init__(
            f"{len(rows)} of n={num_rows} rows have NaN or Inf, more than num_corrupt={num_corrupt}"
        )
        self.rows = rows


class Unclean(ValueError):
    """Some row is not finite; raised by the parts of a rule that read all rows."""

    def __init__(self) -> None:
        super().__init__("some rows have NaN or Inf")


def check_rows(rows: Tensor, num_corrupt: Any) -> None:
    """Check what every rule is given.

    Raises:
        ValueError: unless ``rows`` is a floating point ``[n, d]`` with ``n, d >= 1`` and
            ``num_corrupt`` is a whole number from 0.
    """
    if rows.dim() != 2 or 0 in rows.shape:
        raise ValueError(f"rows must be [n, d] with n, d >= 1, got shape {list(rows.shape)}")
    if not rows.is_floating_point():
        raise ValueError(f"rows must be of a floating point type, got {rows.dtype}")
    if isinstance(num_corrupt, bool) or not isinstance(num_corrupt, int | np.integer):
        raise ValueError(f"num_corrupt must be a whole number, got {num_corrupt!r}")
    if num_corrupt < 0:
        raise ValueError(f"needs num_corrupt >= 0, got n={len(rows)} num_corrupt={num_corrupt}")


def set_aside(rows: Tensor, num_corrupt: int) -> tuple[Tensor, int]:
    """Mark the finite rows, and count how many of them may still be corrupt.

    Raises:
        NonFiniteRows: if more rows than ``num_corrupt``, or all, are not finite.
    """
    finite = finite_rows(rows)
    num_bad = int((~finite).sum())
    if num_bad > num_corrupt or num_bad == len(rows):
        bad = tuple((~finite).nonzero().flatten().tolist())
        raise NonFiniteRows(bad, len(rows), num_corrupt)
    return finite, num_corrupt - num_bad


def place_of(trusted: int, kept: Tensor, num_corrupt: int) -> int:
    """Find the place of a trusted row among the kept ones.

    Raises:
        NonFiniteRows: if it was set aside.
    """
    if not 0 <= trusted < len(kept):
        return trusted  # left to the rule, whose message names its bound
    if not bool(kept[trusted]):
        raise NonFiniteRows((trusted,), len(kept), num_corrupt)
    return int(kept[:trusted].sum())
