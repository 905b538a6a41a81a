"""The rows of the peers of a process: gradients, and lies."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import Defence
from byzshield_exp.attacks import PastParameters
from byzshield_exp.errors import RunError
from byzshield_exp.rows.message import Message
from byzshield_exp.training.btard.clip import Clipping, centre
from byzshield_exp.training.btard.parts import parts
from byzshield_exp.training.btard.roster import Places
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.forging import Forging
from byzshield_exp.training.gradients import TrueGradients


class PeerRows:
    """What the peers of this process send in a step, and what it computes again of others.

    Args of the constructor:
        experiment: the parts.
        truth: the gradients that this process computes.
        past: the parameters of earlier steps.
        clipping: what attacks that tune themselves lie to; None: the run's rule.
    """

    def __init__(
        self,
        experiment: Experiment,
        truth: TrueGradients,
        past: PastParameters,
        clipping: Clipping | None,
    ) -> None:
        self._experiment, self._truth, self._clipping = experiment, truth, clipping
        self._forging = Forging(experiment, truth, past)
        self._lies: dict[int, Message] = {}
        self._on_cpu: dict[int, Tensor] = {}
        self._step = 0
        self._liars: tuple[int, ...] = ()  # of the step, and those of them who are not banned
        self._lying: tuple[int, ...] = ()
        self._absent: tuple[int, ...] = ()

    def begin(self, step: int, liars: tuple[int, ...], places: Places) -> None:
        """Compute the rows of a step.

        Args:
            step: of the run.
            liars: active peers whose rows are forged.
            places: of this process, before anybody is banned in this step.
        """
        active = places.roster.active
        everybody = range(self._experiment.assignment.num_workers)
        self._step, self._liars, self._lying = step, liars, liars
        self._absent = tuple(peer for peer in everybody if peer not in active)
        self._on_cpu.clear()
        self._truth.begin(step)
        self._truth.compute(peer for peer in places.active if peer not in liars)
        self._lies = self._forged([peer for peer in places.active if peer in liars])

    def sent(self, peer: int) -> Float[Tensor, " d"]:
        """What a peer of this process sends."""
        if peer not in self._on_cpu:
            message = self._lies.get(peer) or self._truth.message(peer)
            self._on_cpu[peer] = message.row.cpu()
        return self._on_cpu[peer]

    def loss(self, peer: int) -> float:
        """The loss that a peer of this process reports."""
        if peer not in self._lying:
            self._truth.compute([peer])  # it may have come late, for others who are banned
        return float(self._truth.losses[peer])

    def again(self, peer: int) -> Float[Tensor, " d"]:
        """Any peer's true row of this step."""
        return self._truth.rows([peer])[0].cpu()

    def known(self, peer: int) -> Float[Tensor, " d"]:
        """What any peer sends, as liars know who collude."""
        if peer in self._lying and peer not in self._lies:
            self._lies |= self._forged([peer])
        return self.sent(peer)

    def turned_honest(self, peer: int) -> None:
        """Let a liar that was banned go on as an honest peer."""
        self._lies.pop(peer, None)
        self._on_cpu.pop(peer, None)
        self._lying = tuple(liar for liar in self._lying if liar != peer)

    def _forged(self, peers: list[int]) -> dict[int, Message]:
        if not peers:
            return {}
        forge = partial(self._forging.lies, self._step, self._liars, peers)
        try:
            lies = forge(self._absent, self._defence())
        except RunError:  # undefined for those who are left: as if all were there
            lies = forge((), self._defence())
        return {peer: message for (peer, _), message in lies.items()}

    def _defence(self) -> Defence | None:
        if self._clipping is None:
            return None
        count = self._experiment.assignment.num_workers - len(self._absent)
        return Defence(partial(clipped_by_parts, clipping=self._clipping, count=count))


def clipped_by_parts(
    rows: Float[Tensor, "n d"], num_corrupt: int, clipping: Clipping, count: int
) -> Float[Tensor, " d"]:
    """What the peers together make of rows, of which some coordinates may be a sample.

    Args:
        rows: all finite.
        num_corrupt: not used.
        clipping: as all peers know it.
        count: of parts.
    """
    pieces = [centre(rows[:, where], clipping).point for where in parts(rows.shape[1], count)]
    return torch.cat(pieces)
