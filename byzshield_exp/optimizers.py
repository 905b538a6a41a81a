"""HOW THE UPDATE IS APPLIED: torch's own optimizers and schedules over the flat parameters."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Literal

from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

SCHEDULE_KEYS = ("schedule", "decay", "decay_every", "horizon")  # arguments of `scheduled`
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
    schedule: Literal["step", "cosine", "constant"] = "step",
    decay: float = 1.0,
    decay_every: int = 1,
    horizon: int | None = None,
) -> tuple[Optimizer, LRScheduler]:
    """SGD with momentum and a schedule of the learning rate.

    Args:
        params: the flat parameters ``[d]``.
        lr: learning rate of the first step, > 0.
        momentum: in [0, 1).
        weight_decay: L2 penalty, >= 0.
        nesterov: needs ``momentum > 0``.
        schedule: of ``lr``, see :func:`scheduled`.
        decay: factor of ``lr``, > 0 (``step``).
        decay_every: steps from one such factor to the next, >= 1 (``step``).
        horizon: steps until ``lr`` is 0, >= 1 (``cosine``).

    Raises:
        ValueError: if an argument is out of its range, or is of another schedule.
    """
    if not (lr > 0 and 0 <= momentum < 1 and weight_decay >= 0):
        raise ValueError(
            "needs lr > 0, 0 <= momentum < 1 and weight_decay >= 0, "
            f"got lr={lr} momentum={momentum} weight_decay={weight_decay}"
        )
    if nesterov and momentum == 0:
        raise ValueError("nesterov=true needs momentum > 0, got momentum=0")
    optimizer = SGD(
        [params], lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )
    return scheduled(optimizer, schedule, decay, decay_every, horizon)


def adam(
    params: Tensor,
    lr: float = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    schedule: Literal["step", "cosine", "constant"] = "step",
    decay: float = 1.0,
    decay_every: int = 1,
    horizon: int | None = None,
) -> tuple[Optimizer, LRScheduler]:
    """Adam with a schedule of the learning rate.

    Args:
        params: the flat parameters ``[d]``.
        lr: learning rate of the first step, > 0.
        beta1: decay of the mean gradient, in [0, 1).
        beta2: decay of the mean squared gradient, in [0, 1).
        eps: added to the root of the mean square, > 0.
        weight_decay: >= 0.
        decoupled: weight decay, times ``lr``, shrinks the parameters themselves (AdamW); else it is
            an L2 penalty, added to the gradient.
        schedule: of ``lr``, see :func:`scheduled`.
        decay: factor of ``lr``, > 0 (``step``).
        decay_every: steps from one such factor to the next, >= 1 (``step``).
        horizon: steps until ``lr`` is 0, >= 1 (``cosine``).

    Raises:
        ValueError: if an argument is out of its range, or is of another schedule.

    Source: Kingma and Ba, "Adam", ICLR 2015, Algorithm 1; ``decoupled``: Loshchilov and Hutter,
    "Decoupled Weight Decay Regularization", ICLR 2019, Algorithm 2.
    """
    if not (lr > 0 and 0 <= beta1 < 1 and 0 <= beta2 < 1 and eps > 0 and weight_decay >= 0):
        raise ValueError(
            "needs lr > 0, beta1 and beta2 in [0, 1), eps > 0 and weight_decay >= 0, got "
            f"lr={lr} beta1={beta1} beta2={beta2} eps={eps} weight_decay={weight_decay}"
        )
    kind = AdamW if decoupled else Adam
    optimizer = kind([params], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
    return scheduled(optimizer, schedule, decay, decay_every, horizon)


def scheduled(
    optimizer: Optimizer,
    schedule: Literal["step", "cosine", "constant"] = "step",
    decay: float = 1.0,
    decay_every: int = 1,
    horizon: int | None = None,
) -> tuple[Optimizer, LRScheduler]:
    """Give an optimizer a schedule of its learning rate.

    Args:
        optimizer: over the flat parameters.
        schedule: ``step`` multiplies the learning rate by ``decay`` every ``decay_every`` steps;
            ``cosine`` lets it fall to 0 over ``horizon`` steps along half a cosine; ``constant``.
        decay: of ``step``, > 0.
        decay_every: of ``step``, in steps, >= 1.
        horizon: of ``cosine``, in steps, >= 1; not ``steps``, which a run may be continued to.

    Raises:
        ValueError: if an argument is out of its range, or is of another schedule.

    Source: ``step``: schedule (x, y, z) of ByzShield, MLSys 2021, Section 6 and Table 7.
    ``cosine``: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts.
    """
    if not (decay > 0 and decay_every >= 1):
        raise ValueError(
            f"needs decay > 0 and decay_every >= 1, got decay={decay} decay_every={decay_every}"
        )
    if schedule != "step" and decay != 1:
        raise ValueError(f"decay={decay} is of schedule=step, got schedule={schedule}")
    if (schedule == "cosine") != (horizon is not None):
        raise ValueError(
            f"schedule={schedule} horizon={horizon}: schedule=cosine, and no other, needs a "
            "horizon in steps"
        )
    if horizon is not None and horizon < 1:
        raise ValueError(f"needs horizon >= 1, got horizon={horizon}")
    if horizon is not None:
        return optimizer, LambdaLR(optimizer, lambda done: _half_cosine(done / horizon))
    return optimizer, StepLR(optimizer, step_size=decay_every, gamma=decay)


def _half_cosine(share: float) -> float:
    """From 1 at 0 to 0 at 1, and beyond."""
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2
