"""An optimizer of your own."""

from collections.abc import Iterable

import torch
from torch import Tensor


class SignDescent(torch.optim.Optimizer):
    """Moves each parameter by ``lr`` against the sign of its gradient."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.001) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                param.sub_(group["lr"] * param.grad.sign())
