"""The thin residual networks that were made for CIFAR-10.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
"""

from jaxtyping import Float
from torch import Tensor, nn

from byzshield_exp.networks.normalisation import Norm, he_normal, normalise
from byzshield_exp.networks.pictures import Shape


def resnet20(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 16
) -> nn.Module:
    """ResNet-20 of the CIFAR-10 section: three stages, shortcuts without parameters.

    On 3 x 32 x 32 pictures with 10 classes it has d = 269,722 parameters with batch or group
    normalisation.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        norm: ``batch`` as in the paper; ``group`` and ``none`` have no running statistics.
        groups: most groups of a normalisation; fewer where they do not divide its channels.
        width: channels of the first of the three stages, each of which has twice as many as the
            one before.

    Raises:
        ValueError: if ``groups`` or ``width`` is not positive.
    """
    return _cifar_resnet(3, shape, num_classes, norm, groups, width)


def resnet32(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 16
) -> nn.Module:
    """ResNet-32 of the CIFAR-10 section, as :func:`resnet20`: d = 464,154."""
    return _cifar_resnet(5, shape, num_classes, norm, groups, width)


def resnet44(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 16
) -> nn.Module:
    """ResNet-44 of the CIFAR-10 section, as :func:`resnet20`: d = 658,586."""
    return _cifar_resnet(7, shape, num_classes, norm, groups, width)


def resnet56(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 16
) -> nn.Module:
    """ResNet-56 of the CIFAR-10 section, as :func:`resnet20`: d = 853,018."""
    return _cifar_resnet(9, shape, num_classes, norm, groups, width)


def resnet110(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 16
) -> nn.Module:
    """ResNet-110 of the CIFAR-10 section, as :func:`resnet20`: d = 1,727,962."""
    return _cifar_resnet(18, shape, num_classes, norm, groups, width)


def _cifar_resnet(
    per_stage: int, shape: Shape, num_classes: int, norm: Norm, groups: int, width: int
) -> nn.Module:
    """A stem, three stages, and a classifier of the mean pixel."""
    from torchvision.models.resnet import BasicBlock  # a second and a half to import

    if width < 1:
        raise ValueError(f"width must be positive, got width={width}")
    blocks = [BasicBlock(width, width) for _ in range(per_stage)]
    for channels in (2 * width, 4 * width):
        blocks.append(BasicBlock(channels // 2, channels, 2, _Shortcut()))
        blocks += [BasicBlock(channels, channels) for _ in range(per_stage - 1)]
    network = nn.Sequential(
        nn.Conv2d(shape[0], width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )
    he_normal(network)
    normalise(network, norm, groups, [block.conv2 for block in blocks])
    return network


class _Shortcut(nn.Module):
    """Option A: every second pixel, and zeros for as many new channels."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 2*c h2 w2"]:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))
