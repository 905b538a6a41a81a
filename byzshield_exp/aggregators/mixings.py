"""Pre-aggregators: ``(rows, num_corrupt) -> (rows, num_corrupt)``, applied before a rule.

Each mixes the rows linearly, with weights that depend on their distances only.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.geometry import Geometry
from byzshield_exp.aggregators.neighbours import check_some_left
from byzshield_exp.aggregators.rule import mixing


@mixing
def nnm(rows: Geometry, num_corrupt: int) -> tuple[Float[Tensor, "n n"], int]:
    """Nearest neighbour mixing: each row becomes the mean of its ``n - num_corrupt`` nearest rows.

    A row is its own nearest.

    Formula: y_i = the mean of the n - c rows x_j with the least ||x_j - x_i||.

    Raises:
        ValueError: unless ``num_corrupt < n``.

    Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by Mixing", AISTATS
    2023, Algorithm 2.
    """
    check_some_left(rows.num_rows, num_corrupt)
    keep = rows.num_rows - num_corrupt
    apart = rows.squared.clone().fill_diagonal_(-1)
    nearest = apart.argsort(dim=1, stable=True)[:, :keep]
    return torch.zeros_like(apart).scatter_(1, nearest, 1 / keep), num_corrupt


@mixing
def bucketing(
    rows: Geometry, num_corrupt: int, size: int = 2, generator: np.random.Generator | None = None
) -> tuple[Float[Tensor, "m n"], int]:
    """The means of random buckets of ``size`` rows; each corrupt row spoils one at most.

    Formula: y_b = the mean of the rows of bucket b, for b = 1 ... ceil(n / s).

    Args:
        rows: one gradient per row.
        num_corrupt: how many rows may be forged; as many buckets may be.
        size: rows in a bucket (s); the last may have fewer.
        generator: shuffles the rows; None keeps their order.

    Raises:
        ValueError: unless ``1 <= size <= n``.

    Source: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via
    Bucketing", ICLR 2022, Algorithm 1.
    """
    num_rows = rows.num_rows
    if not 1 <= size <= num_rows:
        raise ValueError(f"needs 1 <= size <= n, got size={size} n={num_rows}")
    order = np.arange(num_rows) if generator is None else generator.permutation(num_rows)
    weights = torch.zeros((-(-num_rows // size), num_rows), dtype=torch.float64)
    for bucket, start in enumerate(range(0, num_rows, size)):
        members = order[start : start + size]
        weights[bucket, members] = 1 / len(members)
    return weights, min(num_corrupt, len(weights))


@mixing
def static_clip(
    rows: Geometry, num_corrupt: int, max_norm: float = 2.0
) -> tuple[Float[Tensor, "n n"], int]:
    """Rows longer than ``max_norm`` are scaled down to it.

    Formula: y_i = x_i min(1, max_norm / ||x_i||).

    Args:
        rows: one gradient per row.
        num_corrupt: not changed.
        max_norm: of a row, > 0.

    Raises:
        ValueError: unless ``max_norm > 0``.

    Source: folklore; compared with ARC in Allouah et al., "Adaptive Gradient Clipping for Robust
    Federated Learning", ICLR 2025.
    """
    if not max_norm > 0:
        raise ValueError(f"needs max_norm > 0, got {max_norm=}")
    return _clip(rows.norms, max_norm / rows.scale), num_corrupt


@mixing
def arc(rows: Geometry, num_corrupt: int) -> tuple[Float[Tensor, "n n"], int]:
    """Adaptive robust clipping: the ``k`` longest rows are scaled down to the norm of the next.

    ``k = floor(2 (c / n) (n - c))`` with ``c = num_corrupt``.

    Formula: y_i = x_i min(1, C / ||x_i||), where C is the (k + 1)th largest norm and k = floor(2
        (c / n) (n - c)).

    Raises:
        ValueError: unless ``num_corrupt < n``.

    Source: Allouah, Guerraoui, Gupta, Jellouli, Rizk and Stephan, "Adaptive Gradient Clipping for
    Robust Federated Learning", ICLR 2025, Algorithm 2.
    """
    num_rows = rows.num_rows
    check_some_left(num_rows, num_corrupt)
    num_clipped = 2 * num_corrupt * (num_rows - num_corrupt) // num_rows
    limit = rows.norms.sort().values[num_rows - num_clipped - 1]
    return _clip(rows.norms, float(limit)), num_corrupt


def _clip(norms: Float[Tensor, " n"], limit: float) -> Float[Tensor, "n n"]:
    return torch.where(norms > limit, limit / norms, 1.0).diag()
