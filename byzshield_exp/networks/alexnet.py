"""Krizhevsky's network, cut down for small pictures."""

from torch import nn

from byzshield_exp.networks.pictures import Shape, refuse_small


def alexnet(shape: Shape, num_classes: int) -> nn.Module:
    """AlexNet in its CIFAR form: five convolutions, three max poolings, one linear layer.

    On 3 x 32 x 32 pictures with 10 classes it has d = 2,472,266 parameters. What is left of
    larger pictures is averaged.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.

    Raises:
        ValueError: if a side of the picture is below 29.

    Source: Krizhevsky, Sutskever and Hinton, NeurIPS 2012, in the form of the DETOX and ByzShield
    codes (``alexnet.py``), which never run it.
    """
    refuse_small("alexnet", shape, smallest=29)
    return nn.Sequential(
        nn.Conv2d(shape[0], 64, kernel_size=11, stride=4, padding=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, num_classes),
    )
