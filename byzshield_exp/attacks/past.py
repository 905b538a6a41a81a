"""The parameters that some attacks look back at."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks.attack import is_initial_read, recent_steps

RING = "past_params"  # its name in the server's state


class PastParameters:
    """Parameters of earlier steps, as far as the attack declares that it reads them.

    Those of the last ``n`` steps are kept in a ring ``[n, d]`` in the host's memory; those of
    step 0 are kept by themselves.

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
        self._initial = params.clone() if is_initial_read(attack) else None
        num_kept = recent_steps(attack)
        if num_kept:
            state[RING] = torch.zeros((num_kept, len(params)), dtype=params.dtype)

    def at(self, step: int) -> Float[Tensor, " d"]:
        """The parameters at the beginning of step 0, or of one of the steps that are kept.

        Raises:
            ValueError: if the attack does not declare that it reads them.
        """
        if step == 0 and self._initial is not None:
            return self._initial
        if RING not in self._state:
            raise ValueError(
                f"the parameters of step {step} are not kept: the attack must declare "
                "recent_steps or is_initial_read"
            )
        ring = self._state[RING]
        return ring[step % len(ring)].to(self._params.device)

    def remember(self, step: int) -> None:
        """Keep the parameters of a step, in the place of the oldest ones."""
        if RING in self._state:
            ring = self._state[RING]
            ring[step % len(ring)] = self._params

    def known(self, step: int) -> list[Tensor]:
        """What the ring holds before a step: a resumed server sends it to the other ranks."""
        return list(self._state[RING][:step]) if RING in self._state else []
