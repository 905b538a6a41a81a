"""A network whose numbers are views of one flat vector."""

import copy
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class Flat(NamedTuple):
    """The part of a network that a server publishes: writing to it changes the network.

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

    So nothing is copied to load or to publish them.
    """
    parameters = list(network.parameters())
    places = running_statistics(network)
    statistics = [getattr(module, name) for module, name in places]
    state = torch.cat([entries_of(part.detach()) for part in (*parameters, *statistics)])
    count = sum(parameter.numel() for parameter in parameters)
    flat = Flat(state, state[:count], state[count:])
    for parameter, view in zip(parameters, views_of(flat.params, parameters), strict=True):
        parameter.data = view
    for (module, name), view in zip(places, views_of(flat.statistics, statistics), strict=True):
        setattr(module, name, view)
    return flat


def entries_of(tensor: Tensor) -> Float[Tensor, " m"]:
    """The entries of a parameter, or of its gradient, as they lie in the flat vector.

    The channels of a convolution's kernel come last there, ``[out, height, width, in]``: that makes
    it up to 1.7 times as fast (scripts/bench_files.py).
    """
    return (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor).reshape(-1)


def views_of(vector: Float[Tensor, " m"], tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """The parts of a flat vector, each with the shape of one of these tensors."""
    for tensor, part in zip(tensors, vector.split([t.numel() for t in tensors]), strict=True):
        if tensor.dim() == 4:
            out, channels, height, width = tensor.shape
            yield part.view(out, height, width, channels).permute(0, 3, 1, 2)
        else:
            yield part.view(tensor.shape)


def running_statistics(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where a network keeps running means and variances (BatchNorm), as module and name."""
    return [
        (module, name)
        for module in network.modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
        for name in ("running_mean", "running_var")
    ]


def twin(network: nn.Module) -> nn.Module:
    """A copy that shares the parameters and has running statistics of its own."""
    own = [getattr(module, name) for module, name in running_statistics(network)]
    known = {id(parameter): parameter for parameter in network.parameters()}
    return copy.deepcopy(network, known | {id(part): part.clone() for part in own})


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
