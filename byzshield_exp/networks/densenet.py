"""Densely connected networks."""

from torch import nn

from byzshield_exp.networks.normalisation import Norm, normalise
from byzshield_exp.networks.pictures import Shape, refuse_small


def densenet121(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, growth: int = 32
) -> nn.Module:
    """DenseNet-121 in its CIFAR form: torchvision's with a plain 3 x 3 convolution as its stem.

    On 3 x 32 x 32 pictures with 10 classes it has d = 6,956,298 parameters with batch or group
    normalisation.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        norm: ``batch`` as in the paper; ``group`` and ``none`` have no running statistics.
        groups: most groups of a normalisation; fewer where they do not divide its channels.
        growth: channels that each layer adds; the stem has twice as many.

    Raises:
        ValueError: if a side of the picture is below 8, or ``groups`` or ``growth`` not positive.

    Source: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, Table 1, in the
    form of the ByzShield code (``densenet.py``).
    """
    from torchvision.models import DenseNet  # a second and a half to import

    refuse_small("densenet121", shape, smallest=8)
    if growth < 1:
        raise ValueError(f"growth must be positive, got growth={growth}")
    network: nn.Module = DenseNet(growth, (6, 12, 24, 16), 2 * growth, num_classes=num_classes)
    stem = nn.Conv2d(shape[0], 2 * growth, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight)  # as torchvision's own convolutions
    network.set_submodule("features.conv0", stem)
    for name in ("norm0", "relu0", "pool0"):
        network.set_submodule(f"features.{name}", nn.Identity())
    normalise(network, norm, groups)
    return network
