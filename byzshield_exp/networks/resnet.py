"""Residual networks for small pictures."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

Norm = Callable[[int], nn.Module]


def resnet18(
    shape: tuple[int, int, int],
    num_classes: int,
    norm: Literal["group"] = "group",
    groups: int = 32,
    width: int = 64,
) -> nn.Module:
    """ResNet-18 in its CIFAR form: a 3 x 3 stem of stride 1, no max pooling, torchvision's blocks.

    On 3 x 32 x 32 pictures with 10 classes it has d = 11,173,962 parameters, as it has with the
    papers' batch normalisation.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        norm: group normalisation; it has no running statistics, which would have to be sent too.
        groups: most groups of a normalisation; fewer where they do not divide its channels or
            would hold one each, which makes the last pixel of a small picture zero.
        width: channels of the first of the four stages, each of which has twice as many as the
            one before.

    Raises:
        ValueError: if ``groups`` or ``width`` is not positive.

    Source: He et al., CVPR 2016, in the form of the ByzShield code (``resnet.py``); Wu and He,
    "Group Normalization", ECCV 2018. The convolutions start from He's normal distribution, as
    torchvision's do.
    """
    if min(groups, width) < 1:
        raise ValueError(f"groups and width must be positive, got groups={groups} width={width}")
    norm_of: Norm = {"group": partial(_group_norm, most=groups)}[norm]
    network = nn.Sequential(
        nn.Conv2d(shape[0], width, kernel_size=3, padding=1, bias=False),
        norm_of(width),
        nn.ReLU(),
        _stage(width, width, norm_of),
        *(_stage(width << halvings, width << halvings + 1, norm_of) for halvings in range(3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, num_classes),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _stage(channels_in: int, channels: int, norm_of: Norm) -> nn.Module:
    """Two blocks; the first halves height and width where it changes the channels."""
    from torchvision.models.resnet import BasicBlock, conv1x1  # a second and a half to import

    if channels_in == channels:
        first = BasicBlock(channels, channels, norm_layer=norm_of)
    else:
        shortcut = nn.Sequential(conv1x1(channels_in, channels, 2), norm_of(channels))
        first = BasicBlock(channels_in, channels, 2, shortcut, norm_layer=norm_of)
    return nn.Sequential(first, BasicBlock(channels, channels, norm_layer=norm_of))


def _group_norm(channels: int, most: int) -> nn.Module:
    fitting = (n for n in range(1, most + 1) if channels % n == 0 and 2 * n <= channels)
    return nn.GroupNorm(max(fitting, default=1), channels)
