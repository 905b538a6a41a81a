"""Optimizer and schedule, on every process that applies updates."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.clusters import Transport
from byzshield_exp.optimizers import without_compiler
from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.experiment import Experiment

_TENSOR = "tensor"


class Updates:
    """Applies updates to the parameters of this process.

    Args of the constructor:
        experiment: the parts; its parameters are changed.
        skips: whether an update that is not finite is left out.
    """

    def __init__(self, experiment: Experiment, skips: bool) -> None:
        self._experiment, self._skips = experiment, skips

    def make(self) -> None:
        """Make optimizer and schedule; a process that applies nothing need not have them.

        Raises:
            ConfigError: if their arguments are out of range.
        """
        _ = self._made

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self._made[0].param_groups[0]["lr"])

    def apply(self, update: Float[Tensor, " d"], statistics: Float[Tensor, " s"]) -> bool:
        """Apply an update; return whether it was not left out.

        Args:
            update: the aggregate.
            statistics: the network's next running statistics.
        """
        if self._skips and not is_finite(update):
            return False  # the schedule counts updates, not steps
        params, (optimizer, scheduler) = self._experiment.params, self._made
        params.grad = update
        with without_compiler():
            optimizer.step()
        params.grad = None  # d numbers that the next step has no room for
        scheduler.step()
        self._experiment.flat.statistics.copy_(statistics)
        return True

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of optimizer and scheduler."""
        optimizer, scheduler = self._made
        with without_compiler():
            return {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        optimizer, scheduler = self._made
        with without_compiler():
            optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])

    @cached_property
    def _made(self) -> tuple[Any, Any]:
        made: tuple[Any, Any] = self._experiment.make_optimizer(self._experiment.params)
        return made


def shared(transport: Transport, state: Any) -> Any:
    """Give rank 0's state to all ranks: dicts, lists, tuples, numbers, text and tensors.

    Its form travels as JSON, and each tensor as it is: nothing is unpickled.

    Args:
        transport: whose ``share`` carries it; every rank calls this.
        state: on rank 0; ignored on other ranks.
    """
    tensors: list[Tensor] = []
    form = json.dumps(_written(state, tensors)).encode() if transport.rank == 0 else b""
    size = torch.tensor([len(form)])
    transport.share(size)
    text = torch.zeros(int(size), dtype=torch.uint8)
    if form:
        text = torch.frombuffer(bytearray(form), dtype=torch.uint8)
    transport.share(text)
    if transport.rank > 0:
        state = _read(json.loads(text.numpy().tobytes()), tensors)
    for tensor in tensors:
        if tensor.numel():
            transport.share(tensor)
    return state


def _written(state: Any, tensors: list[Tensor]) -> Any:
    """Put tensors into a list, and the rest into what JSON can say."""
    if isinstance(state, Tensor):
        tensors.append(state.detach().cpu().contiguous())
        return [_TENSOR, str(state.dtype).removeprefix("torch."), list(state.shape)]
    if isinstance(state, Mapping):
        return ["dict", [[key, _written(value, tensors)] for key, value in state.items()]]
    if isinstance(state, list | tuple):
        return [type(state).__name__, [_written(value, tensors) for value in state]]
    if isinstance(state, np.generic):
        state = state.item()
    if state is None or isinstance(state, bool | int | float | str):
        return ["value", state]
    raise TypeError(f"the state has a {type(state).__name__}, which does not travel")


def _read(form: Any, tensors: list[Tensor]) -> Any:
    """Make what :func:`_written` described, with zeros in the tensors."""
    kind, *rest = form
    if kind == _TENSOR:
        tensors.append(torch.zeros(rest[1], dtype=getattr(torch, rest[0])))
        return tensors[-1]
    if kind == "dict":
        return {key: _read(value, tensors) for key, value in rest[0]}
    if kind in ("list", "tuple"):
        found = [_read(value, tensors) for value in rest[0]]
        return found if kind == "list" else tuple(found)
    return rest[0]
