"""The parameters that some attacks look back at."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks.options import option

RING = "past_params"  # its name in the server's state


class PastParameters:
    """Parameters of earlier steps, as far as the attack's arguments ask for them.

    An argument ``delay`` keeps those of the last ``delay`` steps in a ring ``[delay, d]``, an
    argument ``warmup`` those before the first step. The ring is in the host's memory.

    Args:
        attack: bound; None needs nothing.
        params: the live parameters, still the initial ones.
        state: where the ring lives under :data:`RING`, so that a checkpoint holds it.
    """

    def __init__(
        self,
        attack: Callable[..., Any] | None,
        params: Float[Tensor, " d"],
        state: dict[str, Tensor],
    ) -> None:
        self._params, self._state = params, state
        self._initial = None if option(attack, "warmup") is None else params.clone()
        delay = option(attack, "delay")
        if delay is not None:
            state[RING] = torch.zeros((delay, len(params)), dtype=params.dtype)

    def at(self, step: int) -> Float[Tensor, " d"]:
        """The parameters at the beginning of step 0, or of one of the last ``delay`` steps.

        Raises:
            ValueError: if the attack has no argument that asks for them.
        """
        if step == 0 and self._initial is not None:
            return self._initial
        if RING not in self._state:
            raise ValueError(
                f"the parameters of step {step} are not kept: give the attack an argument named "
                "delay or warmup"
            )
        ring = self._state[RING]
        return ring[step % len(ring)].to(self._params.device)

    def remember(self, step: int) -> None:
        """Keep the parameters of a step, in the place of those ``delay`` steps before."""
        if RING in self._state:
            ring = self._state[RING]
            ring[step % len(ring)] = self._params

    def known(self, step: int) -> list[Tensor]:
        """What is in the ring before a step: the vectors that a resumed server has to share."""
        return list(self._state[RING][:step]) if RING in self._state else []
