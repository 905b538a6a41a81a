"""What is learnt: the data and the network of a run, as its configuration says."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from byzshield_exp.binding import construct
from byzshield_exp.datasets import Dataset
from byzshield_exp.errors import ConfigError
from byzshield_exp.networks import Flat, flatten
from byzshield_exp.streams import Stream, generator


@dataclass(frozen=True, eq=False)
class Task:
    """A data set and a network for it, on the device of the run.

    Attributes:
        dataset: pictures and classes.
        network: its parameters and running statistics are views of ``flat``.
        flat: float32, initialised from the run's seed.
    """

    dataset: Dataset
    network: nn.Module
    flat: Flat


def build_task(config: Mapping[str, Any]) -> Task:
    """Build the data set and the network.

    Raises:
        ConfigError: in one line, with the key, the value and the bound.
    """
    dataset: Dataset = _on_device(construct("dataset", config["dataset"]), config["device"])
    network = _network(config, dataset)
    return Task(dataset, network, flatten(network))


def draws_random_numbers(config: Mapping[str, Any], task: Task, file_size: int) -> bool:
    """Try the network on a few zeros; whether it draws random numbers while it learns (dropout).

    Raises:
        ConfigError: if it cannot take such pictures, or so few.
    """
    network = copy.deepcopy(task.network).train()
    zeros = task.flat.params.new_zeros((min(2, file_size), *task.dataset.shape))
    with torch.random.fork_rng():
        before = _random_states()
        try:
            with torch.no_grad():
                scores = network(zeros)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"network={config['choices']['network']} on {len(zeros)} pictures of "
                f"{'x'.join(map(str, task.dataset.shape))} (files of {file_size}): {reason}"
            ) from error
        if scores.shape != (len(zeros), task.dataset.num_classes):
            raise ConfigError(
                f"network={config['choices']['network']} gives {list(scores.shape)} for "
                f"{len(zeros)} pictures, instead of {[len(zeros), task.dataset.num_classes]}"
            )
        return any(
            not torch.equal(one, other) for one, other in zip(before, _random_states(), strict=True)
        )


def _random_states() -> list[Tensor]:
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_gpus]


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
    if any(
        isinstance(module, _NormBase) and module.momentum is None for module in network.modules()
    ):
        raise ConfigError(
            f"network={config['choices']['network']}: running statistics with momentum=None count "
            "batches, which workers that come and go do not have in common"
        )
    return network.to(config["device"])
