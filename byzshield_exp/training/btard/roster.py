"""Who takes part in a step."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from byzshield_exp.clusters import Seats
from byzshield_exp.training.btard.parts import parts


@dataclass(frozen=True)
class Roster:
    """The peers of one attempt.

    Attributes:
        live: all who are there, ascending.
        duties: (validator, target) of the step before; a validator computes nothing of its own
            unless only validators are left.
    """

    live: tuple[int, ...]
    duties: tuple[tuple[int, int], ...] = ()

    @cached_property
    def active(self) -> tuple[int, ...]:
        """Those who compute and aggregate, in the order of their parts."""
        busy = {validator for validator, _ in self.duties}
        return tuple(peer for peer in self.live if peer not in busy) or self.live

    @cached_property
    def place_of(self) -> dict[int, int]:
        """By active peer the number of its part."""
        return {peer: place for place, peer in enumerate(self.active)}

    def without(self, gone: Collection[int]) -> "Roster":
        """The same without some peers."""
        live = tuple(peer for peer in self.live if peer not in gone)
        duties = tuple(pair for pair in self.duties if pair[0] not in gone)
        return replace(self, live=live, duties=duties)

    def parts(self, size: int) -> list[slice]:
        """The parts of a vector of ``size`` entries, one for each active peer."""
        return parts(size, len(self.active))


@dataclass(frozen=True)
class Places:
    """What this process is in an attempt.

    Args of the constructor:
        seats: who plays whom.
        rank: of this process.
        roster: who takes part.
    """

    seats: Seats
    rank: int
    roster: Roster

    @cached_property
    def live(self) -> tuple[int, ...]:
        """The live peers that this process plays."""
        mine = self.seats.workers_of(self.rank)
        return tuple(peer for peer in self.roster.live if peer in mine)

    @cached_property
    def active(self) -> tuple[int, ...]:
        """Those of them who compute."""
        return tuple(peer for peer in self.live if peer in self.roster.place_of)

    @cached_property
    def observers(self) -> tuple[int, ...]:
        """Ids of the processes without a live peer: they follow, and get the aggregate."""
        busy = {self.seats.rank_of[peer] for peer in self.roster.live}
        return tuple(-1 - rank for rank in range(self.seats.world_size) if rank not in busy)

    @cached_property
    def readers(self) -> tuple[int, ...]:
        """Ids of this process to which aggregates are sent."""
        own = -1 - self.rank
        return (*self.live, *([own] if own in self.observers else []))
