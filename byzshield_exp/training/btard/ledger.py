"""Who was banned, and who has attacked how often: what outlives a step."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from byzshield_exp.training.btard.roster import Roster
from byzshield_exp.training.btard.verdicts import Ban, Reason

_BANS, _ATTACKS, _DUTIES = "btard_bans", "btard_attacks", "btard_duties"


class Ledger:
    """The bans of a run, and what follows from them.

    Args of the constructor:
        num_peers: K.
        drops: whether banned peers are gone; else they go on as honest ones, but for absent ones.

    Attributes:
        bans: (ban, step from 0) in order.
        duties: (validator, target) for the next step.
        attacks: ``[K]``, steps in which a peer attacked.
    """

    def __init__(self, num_peers: int, drops: bool) -> None:
        self._num_peers, self._drops = num_peers, drops
        self.bans: list[tuple[Ban, int]] = []
        self.duties: tuple[tuple[int, int], ...] = ()
        self.attacks = [0] * num_peers

    @property
    def banned(self) -> set[int]:
        """All who were banned."""
        return {ban.peer for ban, _ in self.bans}

    @property
    def gone(self) -> set[int]:
        """Those who take part no more."""
        peers = [ban.peer for ban, _ in self.bans]
        absent = {ban.peer for ban, _ in self.bans if ban.reason is Reason.ABSENT}
        again = {peer for peer in peers if peers.count(peer) > 1}
        return set(peers) if self._drops else absent | again

    @property
    def roster(self) -> Roster:
        """Who takes part in the next attempt."""
        live = tuple(peer for peer in range(self._num_peers) if peer not in self.gone)
        return Roster(live, self.duties).without(self.gone)

    def ban(self, bans: Iterable[Ban], step: int) -> list[Ban]:
        """Note bans, each peer's once; return those that are new.

        If all are of peers who go on as honest ones, they are gone now: what is between them, as a
        broken connection, would not let the step end.
        """
        left = [ban for ban in bans if ban.peer not in self.gone]
        first = [ban for ban in left if ban.peer not in self.banned or ban.reason is Reason.ABSENT]
        new = list({ban.peer: ban for ban in reversed(first or left)}.values())[::-1]
        self.bans += [(ban, step) for ban in new]
        return new

    def save(self, state: dict[str, Tensor]) -> None:
        """Write it into a state."""
        rows = [[ban.peer, step, int(ban.reason), ban.by] for ban, step in self.bans]
        state[_BANS] = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)
        state[_ATTACKS] = torch.tensor(self.attacks, dtype=torch.int64)
        state[_DUTIES] = torch.tensor(self.duties, dtype=torch.int64).reshape(-1, 2)

    def load(self, state: dict[str, Tensor]) -> None:
        """Read it from a state, if it is there."""
        if _BANS not in state:
            return
        rows = state[_BANS].tolist()
        self.bans = [(Ban(peer, Reason(reason), by), step) for peer, step, reason, by in rows]
        self.attacks = state[_ATTACKS].tolist()
        self.duties = tuple((one, other) for one, other in state[_DUTIES].tolist())

    def facts(self) -> dict[str, Any]:
        """What a run's summary says of it; steps count from 1."""
        bans = [
            {
                "peer": ban.peer,
                "step": step + 1,
                "reason": ban.reason.name.lower(),
                "by": None if ban.by < 0 else ban.by,
            }
            for ban, step in self.bans
        ]
        attacks = {str(peer): count for peer, count in enumerate(self.attacks) if count}
        return {"banned": sorted(self.banned), "bans": bans, "attacks": attacks}
