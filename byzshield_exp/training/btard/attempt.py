"""One attempt of the peers to aggregate: what a process knows of it, and how it speaks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.clusters import Transport
from byzshield_exp.training.btard import verdicts
from byzshield_exp.training.btard.cheating import Cheating
from byzshield_exp.training.btard.clip import Centre, Clipping
from byzshield_exp.training.btard.posted import Posted
from byzshield_exp.training.btard.postings import (
    Phase,
    Posting,
    Postings,
    blank,
    column,
    flagged,
    form,
    unpacked,
)
from byzshield_exp.training.btard.roster import Places
from byzshield_exp.training.btard.verdicts import Ban, Reason
from byzshield_exp.training.stopwatch import Stopwatch

Rows = dict[tuple[int, int], Tensor]  # by who has it first, and who gets it
Numbers = tuple[np.ndarray, np.ndarray]  # s and nu


@runtime_checkable
class Gradients(Protocol):
    """The rows of this process's peers, and those that it computes again to check others."""

    def sent(self, peer: int) -> Float[Tensor, " d"]:
        """What a peer of this process sends: its gradient or a lie, on the CPU."""
        ...

    def loss(self, peer: int) -> float:
        """The loss that a peer of this process reports."""
        ...

    def again(self, peer: int) -> Float[Tensor, " d"]:
        """Any peer's true row of this step, on the CPU."""
        ...

    def known(self, peer: int) -> Float[Tensor, " d"]:
        """What any peer sends, as liars know who collude; on the CPU."""
        ...


@dataclass(frozen=True, eq=False)
class Rules:
    """What an attempt follows.

    Attributes:
        seed: of the run.
        num_peers: K.
        size: d.
        projections: k.
        verifies: whether peers check each other; else they only aggregate.
        clipping: as all peers know it.
        delta_max: beyond which a part is checked in public.
        aggregate: what a peer makes of the finite rows ``[n, c]`` of its part.
    """

    seed: int
    num_peers: int
    size: int
    projections: int
    verifies: bool
    clipping: Clipping
    delta_max: float
    aggregate: Callable[[Tensor], Centre]


@dataclass
class Counts:
    """What a record says of a step, over its attempts.

    Attributes:
        accusations: of validators, and of V1.
        eliminations: pairs.
        trials: parts that were checked in public.
        data: bytes of vectors that peers sent to peers.
        control: bytes that peers posted.
    """

    accusations: int = 0
    eliminations: int = 0
    trials: int = 0
    data: int = 0
    control: int = 0


@dataclass(eq=False)
class Attempt:
    """What this process knows of an attempt; the modules of its phases fill it in.

    Attributes:
        rules: what it follows.
        places: what this process is in it.
        transport: of this process.
        gradients: rows.
        cheating: what liars do instead.
        watch: of this process's phases.
        counts: of the step; they are added to.
        step: of the run, from 0.
        number: of the attempt, from 0.
        params: digest of the parameters.
        accusing: by validator of this process, whether it accuses its target.
        judge: ``judge(accusations) -> bans``: what everybody finds of validators' targets.
        committed: by peer, as posted.
        aggregates: by peer, as posted.
        summed: by peer, as posted.
        received: by sender and aggregator of this process, rows as they were committed to.
        centres: by aggregator of this process, what it found.
        own: by aggregator of this process, what it says that it found.
        complaints: (peer of this process, of whom) in the current phase.
        drawn: what the secrets gave.
        aggregate: ``[d]``, what all honest peers have if nobody is banned.
        numbers: by peer of this process, its ``s [n, k]`` and ``nu [n]``.
        expected: by (sender, aggregator of this process), what the sender must post as numbers.
        posted: what all peers know, if nobody is banned.
    """

    rules: Rules
    places: Places
    transport: Transport
    gradients: Gradients
    cheating: Cheating
    watch: Stopwatch
    counts: Counts
    step: int
    number: int
    params: bytes
    accusing: Mapping[int, bool]
    judge: Callable[[list[tuple[int, int]]], list[Ban]]
    committed: Postings = field(default_factory=dict)
    aggregates: Postings = field(default_factory=dict)
    summed: Postings = field(default_factory=dict)
    received: Rows = field(default_factory=dict)
    centres: dict[int, Centre] = field(default_factory=dict)
    own: dict[int, Tensor] = field(default_factory=dict)
    complaints: set[tuple[int, int]] = field(default_factory=set)
    drawn: bytes = b""
    aggregate: Tensor = field(default_factory=lambda: torch.empty(0))
    numbers: dict[int, Numbers] = field(default_factory=dict)
    expected: dict[tuple[int, int], Numbers] = field(default_factory=dict)
    posted: Posted | None = None

    def __post_init__(self) -> None:
        self.roster = self.places.roster
        self.live, self.active = self.roster.live, self.roster.active
        self.parts = self.roster.parts(self.rules.size)
        self.sizes = [where.stop - where.start for where in self.parts]

    def part_of(self, peer: int) -> int:
        """The number of the part that an active peer aggregates."""
        return self.roster.place_of[peer]

    def is_active(self, peer: int) -> bool:
        """Whether a peer computes and aggregates."""
        return peer in self.roster.place_of

    def finite(self) -> np.ndarray:
        """``[n, n]`` bool: whether a peer's row is finite in a part, as it said."""
        return column(self.committed, self.active, "finite").astype(bool)

    def round(
        self,
        phase: Phase,
        expected: Sequence[int],
        write: Callable[[int, Posting], None],
        of: np.dtype[np.void] | None = None,
    ) -> dict[int, Posting]:
        """Let this process's ids post.

        Args:
            phase: of the round.
            expected: ids that may post.
            write: ``write(id, posting)`` fills in a posting of zeros.
            of: its form; None: the phase's.

        Returns:
            What all posted, by id.
        """
        rules, mine = self.rules, {*self.places.live, *self.places.readers}
        if of is None:
            of = form(phase, rules.num_peers, len(self.parts), rules.projections, rules.verifies)
        posts = {}
        for one in expected:
            if one in mine:
                posting = blank(of)
                write(one, posting)
                kept = self.cheating.posted(self, phase, one, posting)
                if kept is not None:
                    posts[one] = kept.tobytes()
        bundle = self.transport.round(self.step, posts, expected, of.itemsize)
        self.counts.control += of.itemsize * sum(one >= 0 for one in bundle)
        return unpacked(bundle, of)

    def swap(self, phase: Phase, vectors: Rows, expected: Mapping[tuple[int, int], int]) -> Rows:
        """Send vectors, as far as liars do; return what came to ids of this process.

        Args:
            phase: of the swap.
            vectors: by sender of this process and receiver.
            expected: of all processes, the entries of each.
        """
        sent = {}
        for pair, vector in vectors.items():
            kept = self.cheating.sent(self, phase, *pair, vector)
            if kept is not None:
                sent[pair] = kept
        self.counts.data += sum(4 * size for (_, to), size in expected.items() if to >= 0)
        return self.transport.swap(self.step, sent, expected)

    def note_complaints(self, one: int, posting: Posting) -> None:
        """Post the complaints of an id."""
        for peer, other in self.complaints:
            if peer == one:
                posting["complaints"][other] = 1

    def absent_or_eliminated(self, said: Postings) -> list[Ban]:
        """Ban who posted nothing, and whom ELIMINATE takes."""
        there = [peer for peer in self.live if peer in said]
        complaints = complaints_in(said, there, self.active)
        found = verdicts.eliminated(complaints, there)
        self.counts.eliminations += sum(ban.reason is Reason.ELIMINATED for ban in found) // 2
        return verdicts.absent(self.live, said) + found


def complaints_in(
    said: Postings, ids: Collection[int], active: Collection[int]
) -> list[tuple[int, int]]:
    """(who complains, of which active peer) in some postings."""
    return [
        (one, other)
        for one in ids
        if one in said
        for other in flagged(said[one]["complaints"])
        if other in active
    ]
