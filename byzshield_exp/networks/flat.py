"""A network whose numbers are views of one flat vector."""

from hashlib import sha256
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class Flat(NamedTuple):
    """What a server publishes of a network: writing to it changes the network.

    Attributes:
        state: ``[d + s]``, the parameters in ``parameters()`` order, then the running statistics.
        params: ``[d]``, a view of it.
        statistics: ``[s]``, a view of it.
    """

    state: Float[Tensor, " d_plus_s"]
    params: Float[Tensor, " d"]
    statistics: Float[Tensor, " s"]


def flatten(network: nn.Module) -> Flat:
    """Move all parameters and running statistics into one flat vector.

    Afterwards nothing is copied to load or to publish them.
    """
    parameters, statistics = list(network.parameters()), running_statistics(network)
    places = [getattr(module, name) for module, name in statistics]
    state = torch.cat([part.detach().reshape(-1) for part in (*parameters, *places)])
    sizes = [part.numel() for part in (*parameters, *places)]
    views = state.split(sizes)
    for parameter, view in zip(parameters, views[: len(parameters)], strict=True):
        parameter.data = view.view_as(parameter)
    for (module, name), view in zip(statistics, views[len(parameters) :], strict=True):
        setattr(module, name, view)
    count = sum(sizes[: len(parameters)])
    return Flat(state, state[:count], state[count:])


def running_statistics(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where a network keeps running means and variances (BatchNorm), as module and name."""
    return [
        (module, name)
        for module in network.modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
        for name in ("running_mean", "running_var")
    ]


def are_variances(network: nn.Module) -> Bool[Tensor, " s"]:
    """Which of the running statistics cannot be negative."""
    parts = [
        torch.full((getattr(module, name).numel(),), name == "running_var")
        for module, name in running_statistics(network)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)


def parameters_sha256(params: Float[Tensor, " d"]) -> str:
    """The hash of the parameters' bytes as float32; equal hashes are equal bits."""
    return sha256(params.detach().cpu().numpy().astype(np.float32).tobytes()).hexdigest()
