"""HOW THE UPDATE IS APPLIED: torch's own optimizer and schedule over the flat parameters."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

_COMPILER = "torch._dynamo"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keep an optimizer from importing torch's compiler: 2 s of the start of a run.

    It would only ask the compiler to leave it alone. Where the compiler is there already, as for a
    compiled network, nothing is done.
    """
    if _COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(_COMPILER)
    vars(stand_in).update(disable=lambda function, *_, **__: function, graph_break=lambda: None)
    sys.modules[_COMPILER] = stand_in
    try:
        yield
    finally:
        del sys.modules[_COMPILER]


def sgd(
    params: Tensor,
    lr: float = 0.05,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    decay: float = 1.0,
    decay_every: int = 1,
) -> tuple[Optimizer, LRScheduler]:
    """SGD with momentum and the papers' schedule (lr, decay, decay_every).

    Args:
        params: the flat parameters ``[d]``.
        lr: learning rate of the first step, > 0.
        momentum: in [0, 1).
        weight_decay: L2 penalty, >= 0.
        nesterov: needs ``momentum > 0``.
        decay: the learning rate is multiplied by it every ``decay_every`` steps, > 0.
        decay_every: steps, >= 1.

    Raises:
        ValueError: if an argument is out of its range.

    Source: schedule (x, y, z) of ByzShield, MLSys 2021, Section 6 and Table 7.
    """
    if not (lr > 0 and 0 <= momentum < 1 and weight_decay >= 0 and decay > 0 and decay_every >= 1):
        raise ValueError(
            "needs lr > 0, 0 <= momentum < 1, weight_decay >= 0, decay > 0 and decay_every >= 1, "
            f"got lr={lr} momentum={momentum} weight_decay={weight_decay} decay={decay} "
            f"decay_every={decay_every}"
        )
    if nesterov and momentum == 0:
        raise ValueError("nesterov=true needs momentum > 0, got momentum=0")
    optimizer = SGD(
        [params], lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )
    return optimizer, StepLR(optimizer, step_size=decay_every, gamma=decay)
