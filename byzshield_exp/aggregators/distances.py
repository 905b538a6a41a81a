"""Distances between rows, right in float64 at any ``n``."""

import torch
from jaxtyping import Float
from torch import Tensor

_CHUNK = 1 << 15  # fixed: the bits of a sum depend on where it is cut


def squared_distances(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """``||rows[i] - rows[j]||^2`` in float64, from differences (no cancellation)."""
    total = rows.new_zeros((len(rows), len(rows)), dtype=torch.float64)
    for chunk in rows.split(_CHUNK, dim=1):
        wide = chunk.double()
        total += torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").square()
    return total


def centred_gram(rows: Float[Tensor, "n d"], centre: int) -> Float[Tensor, "n n"]:
    """``(rows[i] - rows[centre]) . (rows[j] - rows[centre])`` in float64."""
    total = rows.new_zeros((len(rows), len(rows)), dtype=torch.float64)
    for chunk in rows.split(_CHUNK, dim=1):
        wide = chunk.double()
        wide = wide - wide[centre]
        total += wide @ wide.T
    return total
