"""A data set of your own."""

import torch

from byzshield_exp.datasets import Dataset, Pictures, divided


def stripes(num_train: int = 1000, noise: float = 1.0, num_validation: int = 0) -> Dataset:
    """Grey pictures of 8 x 8 with rows (class 0) or columns (class 1) of stripes, and noise."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(num_train + 200) % 2
    rows = (torch.arange(8) % 2).float().expand(8, 8)
    clean = torch.where(labels[:, None, None] == 1, rows, rows.T)
    images = (clean + noise * torch.randn(clean.shape, generator=random))[:, None]
    train, test = (Pictures(images[part], labels[part]) for part in (slice(200, None), slice(200)))
    return divided(train, test, num_classes=2, num_validation=num_validation)
