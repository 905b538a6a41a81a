"""Residual networks in the form that CIFAR codes give those of ImageNet.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1, in the form
of the ByzShield code (``resnet.py``). From 50 layers on, the stride is in the 3 x 3 convolution.
"""

from typing import Any

from torch import nn

from byzshield_exp.networks.normalisation import Norm, he_normal, normalise
from byzshield_exp.networks.pictures import Shape

# On AVX2 processors oneDNN 3.12 (torch 2.14) writes the weight gradient of a channels-last 1 x 1
# convolution with a stride beyond its memory if it has fewer input channels. Such a shortcut picks
# its pixels in a module before the convolution, on GPUs too, so that the network is the same there.
# The names of the modules behind it are one higher than in a wider network.
_NARROW = 8


def resnet18(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """ResNet-18 in its CIFAR form: a 3 x 3 stem of stride 1, no max pooling, torchvision's blocks.

    On 3 x 32 x 32 pictures with 10 classes it has d = 11,173,962 parameters with batch or group
    normalisation.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        norm: ``batch`` as in the paper; ``group`` and ``none`` have no running statistics.
        groups: most groups of a normalisation; fewer where they do not divide its channels.
        width: channels of the first of the four stages, each of which has twice as many as the
            one before.

    Raises:
        ValueError: if ``groups`` or ``width`` is not positive.
    """
    return _resnet("BasicBlock", [2, 2, 2, 2], shape, num_classes, norm, groups, width)


def resnet34(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """ResNet-34 in its CIFAR form, as :func:`resnet18`: d = 21,282,122."""
    return _resnet("BasicBlock", [3, 4, 6, 3], shape, num_classes, norm, groups, width)


def resnet50(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """ResNet-50 in its CIFAR form, as :func:`resnet18` with bottleneck blocks: d = 23,520,842."""
    return _resnet("Bottleneck", [3, 4, 6, 3], shape, num_classes, norm, groups, width)


def resnet101(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """ResNet-101 in its CIFAR form, as :func:`resnet50`: d = 42,512,970."""
    return _resnet("Bottleneck", [3, 4, 23, 3], shape, num_classes, norm, groups, width)


def resnet152(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """ResNet-152 in its CIFAR form, as :func:`resnet50`: d = 58,156,618."""
    return _resnet("Bottleneck", [3, 8, 36, 3], shape, num_classes, norm, groups, width)


def _resnet(
    kind: str,
    counts: list[int],
    shape: Shape,
    num_classes: int,
    norm: Norm,
    groups: int,
    width: int,
) -> nn.Module:
    """A stem, four stages of ``counts`` blocks, and a classifier of the mean pixel."""
    from torchvision.models import resnet  # a second and a half to import

    if width < 1:
        raise ValueError(f"width must be positive, got width={width}")
    block = getattr(resnet, kind)
    stages, inputs = [], width
    for index, count in enumerate(counts):
        stages.append(_stage(block, count, inputs, width << index, stride=2 if index else 1))
        inputs = (width << index) * block.expansion
    network = nn.Sequential(
        nn.Conv2d(shape[0], width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inputs, num_classes),
    )
    he_normal(network)
    blocks = [module for module in network.modules() if isinstance(module, block)]
    normalise(network, norm, groups, [getattr(each, "conv3", each.conv2) for each in blocks])
    return network


def _stage(block: Any, count: int, inputs: int, channels: int, stride: int) -> nn.Module:
    """A stage; its first block may change size and channels, with a convolution as shortcut."""
    outputs, shortcut = channels * block.expansion, None
    if stride != 1 or inputs != outputs:
        pools = stride != 1 and inputs < _NARROW
        shortcut = nn.Sequential(
            *([nn.AvgPool2d(1, stride)] if pools else []),  # every second pixel
            nn.Conv2d(inputs, outputs, kernel_size=1, stride=1 if pools else stride, bias=False),
            nn.BatchNorm2d(outputs),
        )
    first = block(inputs, channels, stride, shortcut)
    return nn.Sequential(first, *(block(outputs, channels) for _ in range(count - 1)))
