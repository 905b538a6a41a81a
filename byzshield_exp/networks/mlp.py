"""Plain perceptrons with hidden layers."""

from itertools import pairwise

from torch import nn

from byzshield_exp.networks.pictures import Shape


def mlp(shape: Shape, num_classes: int, hidden: list[int] | None = None) -> nn.Module:
    """Fully connected layers with ReLU between them.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        hidden: widths of the hidden layers; None means one of 128.

    Raises:
        ValueError: if a width is not positive.
    """
    channels, height, width = shape
    widths = [channels * height * width, *([128] if hidden is None else hidden), num_classes]
    if min(widths) < 1:
        raise ValueError(f"layer widths must be positive, got hidden={hidden}")
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fc(shape: Shape, num_classes: int, sigmoid: bool = False) -> nn.Module:
    """The papers' FC: hidden layers of 800 and 500 units.

    On 28 x 28 grey pictures with 10 classes it has d = 1,033,510 parameters.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        sigmoid: whether the outputs go through a sigmoid, as in the ByzShield and DETOX codes.
            The loss takes a softmax of them, so that with 10 classes it stays above 1.46.

    Source: the FC network of the DETOX and ByzShield codes (``fc_nn.py``).
    """
    network = mlp(shape, num_classes, [800, 500])
    return nn.Sequential(network, nn.Sigmoid()) if sigmoid else network
