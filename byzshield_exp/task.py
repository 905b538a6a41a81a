"""What is learnt: the data and the network of a run, as its configuration says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from byzshield_exp.binding import construct
from byzshield_exp.datasets import Dataset
from byzshield_exp.errors import ConfigError
from byzshield_exp.networks import flatten_parameters
from byzshield_exp.streams import Stream, generator


@dataclass(frozen=True, eq=False)
class Task:
    """A data set and a network for it, on the device of the run.

    Attributes:
        dataset: pictures and classes.
        network: its parameters are views of ``params``.
        params: ``[d]``, float32, initialised from the run's seed.
    """

    dataset: Dataset
    network: nn.Module
    params: Float[Tensor, " d"]


def build_task(config: Mapping[str, Any]) -> Task:
    """Build the data set and the network.

    Raises:
        ConfigError: in one line, with the key, the value and the bound.
    """
    dataset: Dataset = _on_device(construct("dataset", config["dataset"]), config["device"])
    network = _network(config, dataset)
    return Task(dataset, network, flatten_parameters(network))


def _on_device(dataset: Dataset, device: str) -> Dataset:
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no GPU on this machine")
    if device == "cpu":
        return dataset
    tensors: dict[str, Any] = {
        name: value.to(device) for name, value in vars(dataset).items() if isinstance(value, Tensor)
    }
    return replace(dataset, **tensors)


def _network(config: Mapping[str, Any], dataset: Dataset) -> nn.Module:
    """The network, initialised from the run's seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(config["seed"], Stream.NETWORK).integers(2**62)))
        network: nn.Module = construct(
            "network", config["network"], shape=dataset.shape, num_classes=dataset.num_classes
        )
    if next(network.buffers(), None) is not None:
        raise ConfigError(
            f"network={config['choices']['network']}: networks with running statistics "
            "(BatchNorm) are not supported: their statistics would not reach the server"
        )
    if any(isinstance(module, _DropoutNd) for module in network.modules()):
        raise ConfigError(
            f"network={config['choices']['network']}: networks with dropout are not supported: "
            "the replicas of a file would differ"
        )
    return network.to(config["device"])
