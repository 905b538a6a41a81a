"""Rules that treat every coordinate on its own."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def sort_columns(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Each column in ascending order. On a CPU by numpy's vectorised sort, ten times torch's."""
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.sort(rows.detach().numpy(), axis=0))
    return rows.sort(dim=0).values


def mean(rows: Float[Tensor, "n d"], num_corrupt: int = 0) -> Float[Tensor, " d"]:
    """The average row. No defence: one forged row moves it anywhere.

    Source: plain synchronous SGD; after a vote, DRACO's repetition code (Chen et al., ICML 2018).
    """
    return rows.mean(dim=0)


def median(rows: Float[Tensor, "n d"], num_corrupt: int = 0) -> Float[Tensor, " d"]:
    """The coordinate-wise median; for even ``n`` the mean of the two middle entries.

    Stays within the range of the honest entries while ``2 * num_corrupt < n``.

    Source: Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018, Definition 1; the
    convention for even n is that of the ByzShield code (numpy).
    """
    ordered = sort_columns(rows)
    middle = len(rows) // 2
    if len(rows) % 2:
        return ordered[middle].clone()
    return (ordered[middle - 1] + ordered[middle]) / 2


def trimmed_mean(rows: Float[Tensor, "n d"], num_corrupt: int) -> Float[Tensor, " d"]:
    """Coordinate-wise mean without the ``num_corrupt`` largest and smallest entries.

    Raises:
        ValueError: unless ``0 <= 2 * num_corrupt < n``.

    Source: Yin et al., ICML 2018, Definition 2, with ``beta = num_corrupt / n``.
    """
    num_rows = len(rows)
    if not 0 <= 2 * num_corrupt < num_rows:
        raise ValueError(
            f"needs n > 2*num_corrupt to have anything left, got n={num_rows} "
            f"num_corrupt={num_corrupt}"
        )
    return sort_columns(rows)[num_corrupt : num_rows - num_corrupt].mean(dim=0)


def sign_majority(rows: Float[Tensor, "n d"], num_corrupt: int = 0) -> Float[Tensor, " d"]:
    """The sign (-1, 0 or 1) of the sum of the rows' signs: a majority vote per coordinate.

    Source: Bernstein et al., "signSGD with Majority Vote", ICLR 2019.
    """
    return rows.sign().sum(dim=0).sign()


def median_of_means(
    rows: Float[Tensor, "n d"],
    num_corrupt: int,
    num_buckets: int | None = None,
    generator: np.random.Generator | None = None,
) -> Float[Tensor, " d"]:
    """The coordinate-wise median of the means of ``num_buckets`` buckets.

    Args:
        rows: one gradient per row.
        num_corrupt: how many rows may be forged.
        num_buckets: their number, not their size; sizes differ by at most one. None: the fewest
            of which a majority is clean, ``2 * num_corrupt + 1``, and at most ``n``.
        generator: shuffles the rows into the buckets; None keeps their order.

    Raises:
        ValueError: unless ``1 <= num_buckets <= n``.

    Source: the second stage of DETOX (Rajput et al., NeurIPS 2019), where it is "MoM".
    """
    num_rows = len(rows)
    count = min(2 * num_corrupt + 1, num_rows) if num_buckets is None else num_buckets
    if not 1 <= count <= num_rows:
        raise ValueError(f"needs 1 <= num_buckets <= n, got num_buckets={count} n={num_rows}")
    order = np.arange(num_rows) if generator is None else generator.permutation(num_rows)
    buckets = np.array_split(order, count)
    return median(torch.stack([rows[torch.from_numpy(bucket)].mean(dim=0) for bucket in buckets]))
