"""A network of your own."""

from torch import nn


def one_filter_bank(shape: tuple[int, int, int], num_classes: int, filters: int = 8) -> nn.Module:
    """One convolution of 3 x 3, and a linear layer."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(filters * height * width, num_classes),
    )  # fmt: skip
