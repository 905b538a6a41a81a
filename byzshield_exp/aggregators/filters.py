"""Rules that leave out rows by their norm or their signs: CGE and SignGuard."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byzshield_exp.aggregators.geometry import Geometry, weighted_sum
from byzshield_exp.aggregators.neighbours import check_some_left
from byzshield_exp.aggregators.rule import weighing, whole


@weighing(lacks=("translation",), raises_unclean=True)
def cge(rows: Geometry, num_corrupt: int) -> Float[Tensor, " n"]:
    """Comparative gradient elimination: the mean of the ``n - num_corrupt`` shortest rows.

    Formula: y = the mean of the n - c rows with the least ||x_i||.

    Raises:
        ValueError: unless ``num_corrupt < n``.

    Source: Gupta, Liu and Vaidya, "Byzantine Fault-Tolerant Distributed Machine Learning using
    Norm-based Comparative Gradient Elimination", 2020; there the sum, here the mean.
    """
    check_some_left(rows.num_rows, num_corrupt)
    weights = torch.zeros_like(rows.norms)
    kept = rows.norms.argsort(stable=True)[: rows.num_rows - num_corrupt]
    weights[kept] = 1 / len(kept)
    return weights


@whole(lacks=("translation",), raises_unclean=True)
def sign_guard(
    rows: Float[Tensor, "n d"],
    num_corrupt: int = 0,
    low: float = 0.1,
    high: float = 3.0,
    share: float = 0.1,
    generator: np.random.Generator | None = None,
) -> Float[Tensor, " d"]:
    """The mean of the rows whose norm and whose shares of signs are like those of most others.

    Norms must lie within ``low`` and ``high`` times their median. The shares of positive, zero
    and negative entries are clustered by mean shift; the largest cluster is trusted. What is left
    is clipped to the median norm and averaged.

    Formula: y = (1 / |S|) sum over i in S of x_i min(1, M / ||x_i||), where M = median_j ||x_j||
        and S are the rows that pass both tests.

    Args:
        rows: one gradient per row.
        num_corrupt: not used.
        low: least norm, as a multiple of the median norm.
        high: largest norm, as a multiple.
        share: of the coordinates that the signs are counted on, in (0, 1].
        generator: draws these coordinates; None: always the same.

    Raises:
        ValueError: unless ``0 <= low <= 1 <= high`` and ``0 < share <= 1``.

    Source: Xu, Huang, Song and Chu, "Byzantine-robust Federated Learning through Collaborative
    Malicious Gradient Filtering" (SignGuard), ICDCS 2022, Algorithm 2. A median row is always
    within the bounds; where no row passes both tests the norm test decides.
    """
    if not 0 <= low <= 1 <= high or not 0 < share <= 1:
        raise ValueError(
            f"needs 0 <= low <= 1 <= high and 0 < share <= 1, got {low=} {high=} {share=}"
        )
    geometry = Geometry.of(rows)
    middle = geometry.norms.median()
    usual = (geometry.norms >= low * middle) & (geometry.norms <= high * middle)
    kept = usual & _like_most(_sign_shares(rows, share, generator))
    kept = kept if bool(kept.any()) else usual
    clipped = torch.where(geometry.norms > middle, middle / geometry.norms, 1.0)
    return weighted_sum(torch.where(kept, clipped, 0.0) / kept.sum(), rows)


def _sign_shares(
    rows: Tensor, share: float, generator: np.random.Generator | None
) -> Float[Tensor, "n 3"]:
    draw = generator or np.random.default_rng(0)
    width = rows.shape[1]
    chosen = np.sort(draw.choice(width, max(1, round(share * width)), replace=False))
    counts = torch.zeros((len(rows), 3), dtype=torch.float64)
    for part in np.array_split(chosen, -(-len(chosen) // (1 << 16))):
        signs = rows[:, torch.from_numpy(part).to(rows.device)].sign()
        counts += torch.stack([(signs == sign).sum(dim=1) for sign in (1, 0, -1)], dim=1).cpu()
    return counts / len(chosen)


def _like_most(shares: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """Mark the largest cluster; a tie goes to the one nearest to the coordinate-wise median."""
    from sklearn.cluster import MeanShift, estimate_bandwidth  # takes a second to import

    points = shares.numpy()
    width = estimate_bandwidth(points, quantile=0.5, n_samples=None) if len(points) > 1 else 0.0
    if width <= 0:
        width = 1e-6
    labels = MeanShift(bandwidth=width, cluster_all=True).fit(points).labels_
    centre = np.median(points, axis=0)
    clusters = [labels == label for label in np.unique(labels)]
    spreads = [((points[members] - centre) ** 2).sum(axis=1).mean() for members in clusters]
    best = min(range(len(clusters)), key=lambda at: (-clusters[at].sum(), spreads[at]))
    return torch.from_numpy(clusters[best])
