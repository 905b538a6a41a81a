"""What liars post and send in place of what the protocol asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from byzshield_exp.streams import Stream, generator
from byzshield_exp.training.btard.postings import Phase, Posting

if TYPE_CHECKING:
    from byzshield_exp.training.btard.attempt import Attempt


@dataclass(frozen=True, eq=False)
class Move:
    """One thing that a liar is about to post or send.

    Attributes:
        phase: in which it is: ``CLIP`` is the aggregate before it is committed to.
        peer: who.
        receiver: of a vector; None of a posting and in ``CLIP``.
        content: a posting, or a vector that must not be written to; None: nothing.
        attempt: everything that the liar's process knows.
        liars: all who cheat.
    """

    phase: Phase
    peer: int
    receiver: int | None
    content: Any
    attempt: "Attempt"
    liars: tuple[int, ...]

    @cached_property
    def honest(self) -> tuple[int, ...]:
        """The others who compute and do not cheat, ascending."""
        return tuple(peer for peer in self.attempt.active if peer not in self.liars)

    @cached_property
    def random(self) -> np.random.Generator:
        """Numbers of this step, attempt and peer."""
        attempt = self.attempt
        position = attempt.step, attempt.number, self.peer
        return generator(attempt.rules.seed, Stream.CHEAT, *position)


Cheat = Callable[..., Any]  # cheat(move) -> content


class Cheating:
    """The cheats of a step.

    Args of the constructor:
        cheats: by name; each takes a move and returns what is posted or sent, or None.
        liars: who cheat.
        silent: Byzantine peers, who never accuse each other.
    """

    def __init__(
        self, cheats: Mapping[str, Cheat], liars: tuple[int, ...], silent: tuple[int, ...]
    ) -> None:
        self._cheats, self._liars, self._silent = cheats, liars, silent

    def posted(self, attempt: "Attempt", phase: Phase, peer: int, posting: Posting) -> Any:
        """What a peer posts; None: nothing."""
        if phase is Phase.VERDICT and peer in self._silent:
            for other in self._silent:
                posting["accuses"][other] = 0
        return self._altered(attempt, phase, peer, None, posting)

    def sent(
        self, attempt: "Attempt", phase: Phase, peer: int, receiver: int, vector: Tensor
    ) -> Any:
        """What a peer sends to another one; None: nothing."""
        return self._altered(attempt, phase, peer, receiver, vector)

    def aggregated(self, attempt: "Attempt", peer: int, point: Tensor) -> Tensor:
        """The aggregate that a peer says it has found."""
        found: Tensor = self._altered(attempt, Phase.CLIP, peer, None, point)
        return found

    def _altered(
        self, attempt: "Attempt", phase: Phase, peer: int, receiver: int | None, content: Any
    ) -> Any:
        if peer not in self._liars:
            return content
        move = Move(phase, peer, receiver, content, attempt, self._liars)
        for cheat in self._cheats.values():
            if move.content is not None:
                move = replace(move, content=cheat(move))
        return move.content
