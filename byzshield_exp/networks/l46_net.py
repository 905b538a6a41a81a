"""The small network of a student project on BTARD."""

from torch import nn

from byzshield_exp.networks.pictures import Shape, refuse_small


def l46_net(shape: Shape, num_classes: int, dropout: float = 0.5) -> nn.Module:
    """Two 5 x 5 convolutions (10, 20 channels) with 2 x 2 max pooling, then 50 hidden ReLU units.

    On 28 x 28 grey pictures with 10 classes it has d = 21,840 parameters. Its softmax is left to
    the loss.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        dropout: the probability of dropping a channel after the second convolution and a hidden
            unit.

    Raises:
        ValueError: if a side of the picture is below 16, or ``dropout`` not in [0, 1).

    Source: the L46 project, which trains it on MNIST with the protocol of Gorbunov et al.,
    "Secure Distributed Training at Scale", ICML 2022.
    """
    refuse_small("l46_net", shape, smallest=16)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got dropout={dropout}")
    channels, height, width = shape
    rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 10, kernel_size=5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, kernel_size=5),
        nn.Dropout2d(dropout) if dropout else nn.Identity(),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20 * rows * columns, 50),
        nn.ReLU(),
        nn.Dropout(dropout) if dropout else nn.Identity(),
        nn.Linear(50, num_classes),
    )
