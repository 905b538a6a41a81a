"""Wide residual networks."""

from jaxtyping import Float
from torch import Tensor, nn

from byzshield_exp.networks.normalisation import Norm, he_normal, normalise
from byzshield_exp.networks.pictures import Shape


def wrn(
    shape: Shape,
    num_classes: int,
    norm: Norm = "batch",
    groups: int = 32,
    depth: int = 28,
    width: int = 10,
) -> nn.Module:
    """A wide residual network, WRN-28-10 by default: normalisation and ReLU before convolutions.

    WRN-28-10 on 3 x 32 x 32 pictures with 10 classes has d = 36,479,194 parameters with batch or
    group normalisation. There is no dropout.

    Args:
        shape: channels, height and width of a picture.
        num_classes: outputs.
        norm: ``batch`` as in the paper; ``group`` and ``none`` have no running statistics.
        groups: most groups of a normalisation; fewer where they do not divide its channels.
        depth: layers, 6 n + 4: three stages of n blocks.
        width: the stages have 16, 32 and 64 times as many channels.

    Raises:
        ValueError: unless depth is 10, 16, 22, ..., and ``groups`` and ``width`` are positive.

    Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, Table 1.
    """
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth must be 10, 16, 22, 28, ..., got depth={depth}")
    if width < 1:
        raise ValueError(f"width must be positive, got width={width}")
    blocks, inputs = [], 16
    for stage in range(3):
        channels = (16 << stage) * width
        blocks.append(_Block(inputs, channels, stride=2 if stage else 1))
        blocks += [_Block(channels, channels, stride=1) for _ in range((depth - 4) // 6 - 1)]
        inputs = channels
    network = nn.Sequential(
        nn.Conv2d(shape[0], 16, kernel_size=3, padding=1, bias=False),
        *blocks,
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inputs, num_classes),
    )
    he_normal(network)
    normalise(network, norm, groups, [block.conv2 for block in blocks])
    return network


class _Block(nn.Module):
    """Two convolutions; a shortcut that changes size or channels starts after the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        active: Tensor = self.norm1(x).relu()
        branch: Tensor = self.conv2(self.norm2(self.conv1(active)).relu())
        return branch + (x if self.shortcut is None else self.shortcut(active))
