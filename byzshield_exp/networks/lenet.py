"""The small convolutional network of the research codes."""

from torch import nn

from byzshield_exp.networks.pictures import Shape, refuse_small


def lenet(shape: Shape, num_classes: int, hidden_relu: bool = True) -> nn.Module:
    """Two 5 x 5 convolutions (20, 50 channels) with 2 x 2 max pooling, then 500 hidden units.

    On 28 x 28 grey pictures with 10 classes it has d = 431,080 parameters. Below 28 pixels the
    convolutions are padded by 2, so that small pictures are not used up.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        hidden_relu: whether a ReLU follows the hidden layer. The ByzShield and DETOX codes have
            none there (false is exactly their LeNet).

    Raises:
        ValueError: if a side of the picture is below 4.

    Source: LeCun et al., 1998, in the form of the ByzShield code (``lenet.py``).
    """
    channels, height, width = shape
    padding = 2 if min(height, width) < 28 else 0
    refuse_small("lenet", shape, smallest=4)
    rows, columns = (_after_two_blocks(size, padding) for size in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 20, kernel_size=5, padding=padding),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(20, 50, kernel_size=5, padding=padding),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(50 * rows * columns, 500),
        nn.ReLU() if hidden_relu else nn.Identity(),
        nn.Linear(500, num_classes),
    )


def _after_two_blocks(size: int, padding: int) -> int:
    for _ in range(2):
        size = (size + 2 * padding - 4) // 2
    return size
