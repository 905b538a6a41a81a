"""Plain stacks of 3 x 3 convolutions.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, Table 1, in the form
of the DETOX and ByzShield codes (``vgg.py``): batch normalisation after convolutions that keep
their biases, and one linear layer at the end.
"""

from torch import nn

from byzshield_exp.networks.normalisation import Norm, he_normal, normalise
from byzshield_exp.networks.pictures import Shape, refuse_small


def vgg11(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """VGG-11 in its CIFAR form: five stages of 3 x 3 convolutions, one linear layer.

    On 3 x 32 x 32 pictures it has d = 9,231,114 parameters for 10 classes and 9,277,284 for 100,
    with batch or group normalisation. What is left of larger pictures is averaged.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        norm: ``batch`` as in the papers; ``group`` and ``none`` have no running statistics.
        groups: most groups of a normalisation; fewer where they do not divide its channels.
        width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.

    Raises:
        ValueError: if a side of the picture is below 32, or ``groups`` or ``width`` not positive.
    """
    return _vgg("vgg11", [1, 1, 2, 2, 2], shape, num_classes, norm, groups, width)


def vgg13(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """VGG-13 in its CIFAR form, as :func:`vgg11`: d = 9,416,010, for 100 classes 9,462,180."""
    return _vgg("vgg13", [2, 2, 2, 2, 2], shape, num_classes, norm, groups, width)


def vgg16(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """VGG-16 in its CIFAR form, as :func:`vgg11`: d = 14,728,266, for 100 classes 14,774,436."""
    return _vgg("vgg16", [2, 2, 3, 3, 3], shape, num_classes, norm, groups, width)


def vgg19(
    shape: Shape, num_classes: int, norm: Norm = "batch", groups: int = 32, width: int = 64
) -> nn.Module:
    """VGG-19 in its CIFAR form, as :func:`vgg11`: d = 20,040,522, for 100 classes 20,086,692."""
    return _vgg("vgg19", [2, 2, 4, 4, 4], shape, num_classes, norm, groups, width)


def _vgg(
    name: str,
    counts: list[int],
    shape: Shape,
    num_classes: int,
    norm: Norm,
    groups: int,
    width: int,
) -> nn.Module:
    """Five stages of ``counts`` convolutions, a max pooling after each."""
    refuse_small(name, shape, smallest=32)
    if width < 1:
        raise ValueError(f"width must be positive, got width={width}")
    layers: list[nn.Module] = []
    inputs = shape[0]
    for count, channels in zip(counts, (width * n for n in (1, 2, 4, 8, 8)), strict=True):
        for _ in range(count):
            # with no normalisation after it, the bias that stands in its place is the only one
            convolution = nn.Conv2d(inputs, channels, 3, padding=1, bias=norm != "none")
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    last = nn.Linear(inputs, num_classes)
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    he_normal(network)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    normalise(network, norm, groups)
    return network
