"""What is learnt: the data and the network of a run, as its configuration says."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from byzshield_exp.binding import instance_of
from byzshield_exp.datasets import Dataset
from byzshield_exp.errors import ConfigError, located
from byzshield_exp.networks import Flat, flatten, running_statistics, twin
from byzshield_exp.streams import Stream, generator, torch_seeded
from byzshield_exp.training.activations import Activations, counted


@dataclass(frozen=True, eq=False)
class LearningTask:
    """A data set and a network for it, on the device of the run.

    Attributes:
        dataset: pictures and classes.
        network: its parameters and running statistics are views of ``flat``; it learns.
        flat: float32, initialised from the run's seed.
    """

    dataset: Dataset
    network: nn.Module
    flat: Flat


def build_task(config: Mapping[str, Any]) -> LearningTask:
    """Build the data set and the network, on a GPU after making that deterministic.

    Raises:
        ConfigError: in one line, with the key, the value and the bound.
    """
    if config["device"] == "cuda":
        prepare_gpu()
    dataset = instance_of(Dataset, "dataset", config["dataset"])
    try:
        dataset.check()
    except ValueError as error:
        raise ConfigError(f"dataset={config['choices']['dataset']}: {error}") from error
    dataset = _on_device(dataset, config["device"])
    network = _network(config, dataset).train()
    return LearningTask(dataset, network, flatten(network))


class Trial(NamedTuple):
    """What a pass over a few pictures of zeros says of a network.

    Attributes:
        draws: whether it draws random numbers while it learns (dropout).
        activations: what it keeps for the backward pass.
    """

    draws: bool
    activations: Activations


def try_network(config: Mapping[str, Any], task: LearningTask, file_size: int) -> Trial:
    """Let the network learn from a few zeros.

    Raises:
        ConfigError: if it cannot take such pictures, or so few, or changes buffers that workers
            would not have in common.
    """
    network, device = task.network, task.flat.params.device
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    zeros = task.flat.params.new_zeros((min(2, file_size), *task.dataset.shape))
    with torch_seeded(generator(0, Stream.DROPOUT), device):
        state = _random_state(device)
        try:
            with counted(task.flat.state, len(zeros)) as activations:
                scores = network(zeros)
            if not isinstance(scores, Tensor):
                raise TypeError(f"must return scores [n, C], got a {type(scores).__name__}")
            # Squares, as their backward is a kernel, which gives autograd's thread a CUDA context:
            # torch warns if cuBLAS is what it calls first.
            torch.autograd.grad((scores * scores).sum(), list(network.parameters()))
            if running_statistics(network):
                twin(network)  # each thread will need one
        except (RuntimeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"network={config['choices']['network']} on {len(zeros)} pictures of "
                f"{'x'.join(map(str, task.dataset.shape))} (files of {file_size}): "
                f"{located(error)}"
            ) from error
        draws = not torch.equal(state, _random_state(device))
    if scores.shape != (len(zeros), task.dataset.num_classes):
        raise ConfigError(
            f"network={config['choices']['network']} gives {list(scores.shape)} for "
            f"{len(zeros)} pictures, instead of {[len(zeros), task.dataset.num_classes]}"
        )
    _restore_buffers(config, network, before)
    return Trial(draws, activations)


def _restore_buffers(
    config: Mapping[str, Any], network: nn.Module, before: Mapping[str, Tensor]
) -> None:
    """Undo what the trial did to running statistics; nothing else may have changed."""
    shared = {id(getattr(module, name)) for module, name in running_statistics(network)}
    for name, buffer in network.named_buffers():
        if id(buffer) in shared or name.endswith("num_batches_tracked"):
            buffer.copy_(before[name])
        elif name not in before or not torch.equal(buffer, before[name]):
            raise ConfigError(
                f"network={config['choices']['network']} changes its buffer {name} while it "
                "learns: of buffers only BatchNorm's running statistics are sent to the server"
            )


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state() if device.type == "cuda" else torch.get_rng_state()


def prepare_gpu() -> None:
    """Make a GPU deterministic; call it before the first product, when cuBLAS reads its variable.

    Raises:
        ConfigError: if there is no GPU.
    """
    if not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no GPU on this machine")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # filling costs time
    with warnings.catch_warnings():  # torch 2.9 warns once a process; all have these names
        warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")


def _on_device(dataset: Dataset, device: str) -> Dataset:
    if device == "cpu":
        return dataset
    tensors: dict[str, Any] = {
        name: value.to(device) for name, value in vars(dataset).items() if isinstance(value, Tensor)
    }
    return replace(dataset, **tensors)


def _network(config: Mapping[str, Any], dataset: Dataset) -> nn.Module:
    """Make the network, initialised from the run's seed; the global generator is left unchanged."""
    with torch_seeded(generator(config["seed"], Stream.NETWORK)):
        network: nn.Module = instance_of(
            nn.Module,
            "network", config["network"], shape=dataset.shape, num_classes=dataset.num_classes,
        )  # fmt: skip
    if any(module.momentum is None for module, _ in running_statistics(network)):
        raise ConfigError(
            f"network={config['choices']['network']}: running statistics with momentum=None count "
            "batches, which workers that come and go do not have in common"
        )
    return network.to(config["device"])
