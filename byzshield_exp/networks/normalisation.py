"""First weights of convolutions, and the normalisation between a convolution and its ReLU."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["batch", "group", "none"]


def he_normal(network: nn.Module) -> None:
    """Draw the weights of all convolutions from He's normal distribution; their biases are zero.

    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015, equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def normalise(
    network: nn.Module, norm: Norm, groups: int, branch_ends: Sequence[nn.Conv2d] = ()
) -> None:
    """Replace each batch normalisation of a network by another normalisation.

    Args:
        network: as in its paper, with batch normalisation and its first weights; it is changed.
        norm: ``batch`` leaves it as it is. ``group`` has as many parameters and no running
            statistics, which would have to be sent too. ``none`` is a bias per channel.
        groups: most groups of a group normalisation; fewer where they do not divide its channels
            or would hold one each, which makes the last pixel of a small picture zero.
        branch_ends: the last convolution of each of its L residual branches. Without
            normalisation each would double the variance of what it is added to: a factor of 2^54
            in a ResNet-110. With their weights divided by the square root of L, all together
            multiply it by less than e.

    Raises:
        ValueError: if ``groups`` is not positive.

    Source: Ioffe and Szegedy, ICML 2015; Wu and He, "Group Normalization", ECCV 2018. Without
    normalisation: De and Smith, "Batch Normalization Biases Residual Blocks Towards the Identity
    Function in Deep Networks", NeurIPS 2020; their factor is part of the weights here.
    """
    if groups < 1:
        raise ValueError(f"groups must be positive, got groups={groups}")
    if norm == "batch":
        return
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            channels = module.num_features
            other = _group_norm(channels, groups) if norm == "group" else _Bias(channels)
            network.set_submodule(name, other)
    if norm == "none":
        with torch.no_grad():
            for convolution in branch_ends:
                convolution.weight /= len(branch_ends) ** 0.5


def _group_norm(channels: int, most: int) -> nn.Module:
    fitting = (n for n in range(1, most + 1) if channels % n == 0 and 2 * n <= channels)
    return nn.GroupNorm(max(fitting, default=1), channels)


class _Bias(nn.Module):
    """A bias per channel, in place of a normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.bias[:, None, None]
