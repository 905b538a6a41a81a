"""CHECKCOMPUTATIONS: rows of the step before are computed again."""

from collections.abc import Collection

from jaxtyping import Float
from torch import Tensor

from byzshield_exp.training.btard import verdicts
from byzshield_exp.training.btard.posted import Posted
from byzshield_exp.training.btard.roster import Places
from byzshield_exp.training.btard.verdicts import Ban, Recomputed
from byzshield_exp.training.gradients import TrueGradients

PARAMS = "btard_params"  # of the state: the parameters of the step before


class Validation:
    """What this process keeps of the step before, to check it.

    Args of the constructor:
        truth: the gradients that this process computes.
        state: of the protocol.
    """

    def __init__(self, truth: TrueGradients, state: dict[str, Tensor]) -> None:
        self._truth, self._state = truth, state
        self._posted: Posted | None = None

    def load(self) -> None:
        """Read what the state has."""
        self._posted = Posted.of_state(self._state)

    def keep(self, posted: Posted, params: Float[Tensor, " d"]) -> None:
        """Keep a step that is done, and the parameters at its beginning."""
        self._posted = posted
        self._state |= posted.state()
        self._state[PARAMS] = params.clone()

    def accusing(self, places: Places, silent: Collection[int]) -> dict[int, bool]:
        """By validator of this process whether its target's row was another one.

        Args:
            places: of this step.
            silent: liars, who never accuse.
        """
        return {
            validator: validator not in silent and self._found(target).reason is not None
            for validator, target in places.roster.duties
            if validator in places.live
        }

    def judged(self, accusations: list[tuple[int, int]]) -> list[Ban]:
        """What everybody finds of those whom validators accuse.

        Args:
            accusations: (validator, target).
        """
        findings = {target: self._found(target) for _, target in accusations}
        return verdicts.accused(accusations, findings, self._kept.active)

    @property
    def _kept(self) -> Posted:
        if self._posted is None:
            raise ValueError("there was no step before")
        return self._posted

    def _found(self, target: int) -> Recomputed:
        row = self._truth.rows_at(self._kept.step, self._state[PARAMS], [target])[0]
        return self._kept.finding(target, row.cpu())
