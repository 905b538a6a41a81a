"""A network whose parameters are views of one flat vector."""

from hashlib import sha256

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


def flatten_parameters(network: nn.Module) -> Float[Tensor, " d"]:
    """Move all parameters into one flat vector, in ``parameters()`` order, and return it.

    Afterwards writing to the vector changes the network: nothing is copied to load parameters.
    """
    parameters = list(network.parameters())
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    offset = 0
    for parameter in parameters:
        parameter.data = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    return flat


def parameters_sha256(params: Float[Tensor, " d"]) -> str:
    """The hash of the parameters' bytes as float32; equal hashes are equal bits."""
    return sha256(params.detach().cpu().numpy().astype(np.float32).tobytes()).hexdigest()
