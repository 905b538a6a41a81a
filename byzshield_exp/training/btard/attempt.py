"""One attempt of the peers to aggregate: rounds and swaps, until somebody is banned or none is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.clusters import Transport
from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard import lottery, sums, verdicts
from byzshield_exp.training.btard.cheating import Cheating
from byzshield_exp.training.btard.clip import Centre, Clipping
from byzshield_exp.training.btard.posted import Posted
from byzshield_exp.training.btard.postings import (
    Phase,
    Posting,
    Postings,
    aggregate_digest,
    blank,
    column,
    evidence_form,
    flagged,
    form,
    part_digest,
    unpacked,
)
from byzshield_exp.training.btard.roster import Places
from byzshield_exp.training.btard.verdicts import Ban, Finding, Reason
from byzshield_exp.training.stopwatch import Stopwatch

Rows = dict[tuple[int, int], Tensor]


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
        aggregate: ``aggregate(rows [n, c], where)``: what a peer makes of the rows of its part.
    """

    seed: int
    num_peers: int
    size: int
    projections: int
    verifies: bool
    clipping: Clipping
    delta_max: float
    aggregate: Callable[[Tensor, slice], Centre]


@dataclass
class Counts:
    """What a record says of a step.

    Attributes:
        accusations: of validators, and of V1.
        eliminations: pairs.
        trials: parts that were checked in public.
        data: bytes of vectors that peers sent.
        control: bytes that peers posted.
    """

    accusations: int = 0
    eliminations: int = 0
    trials: int = 0
    data: int = 0
    control: int = 0


@dataclass(eq=False)
class Attempt:
    """One attempt; :meth:`run` says who is banned.

    If nobody is, ``aggregate`` is what all honest peers have, and ``posted`` what they know.

    Args of the constructor:
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
        accused_before: by validator of this process, whether it accuses its target.
        judge_before: ``judge(accusations) -> bans``: what everybody finds of these targets.
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
    accused_before: dict[int, bool]
    judge_before: Callable[[list[tuple[int, int]]], list[Ban]]
    aggregate: Tensor = field(default_factory=lambda: torch.empty(0))
    posted: Posted | None = None

    def __post_init__(self) -> None:
        self.roster = self.places.roster
        self.live, self.active = self.roster.live, self.roster.active
        self.parts = self.roster.parts(self.rules.size)
        self.received: Rows = {}  # by sender and aggregator
        self._complaints: set[tuple[int, int]] = set()  # of this process's peers, in this phase
        self._centres: dict[int, Centre] = {}
        self._own: dict[int, Tensor] = {}  # by aggregator of this process, what it says it has
        self._v1: dict[tuple[int, int], tuple[bytes, bytes]] = {}  # by peer and aggregator
        self._numbers: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by peer of this process
        self.drawn = b""
        self.losses: dict[int, float] = {}
        self.aggregates: dict[int, Posting] = {}
        self.distances: np.ndarray = np.zeros((0, 0))

    def run(self) -> list[Ban]:
        """Go through the phases, up to the first in which somebody is banned."""
        phases = [self._commit, self._scatter_and_clip]
        if self.rules.verifies:
            phases += [self._reveal, self._gather, self._check_sums]
        else:
            phases += [self._gather]
        for phase in phases:
            if bans := phase():
                return bans
        return []

    # Phases.

    def _commit(self) -> list[Ban]:
        rules = self.rules
        with self.watch("commit"):
            said = self._round(Phase.COMMIT, self.live, self._commitment)
        self._committed = said
        bans = verdicts.absent(self.live, said)
        self.losses = {peer: float(said[peer]["loss"]) for peer in self.active if peer in said}
        if not rules.verifies:
            return bans
        bans += verdicts.outvoted(said, "params", self.live)
        accusing = [
            (validator, target)
            for validator, target in self.roster.duties
            if validator in said and said[validator]["accuses"]
        ]
        if self.number == 0 and accusing:
            self.counts.accusations += len(accusing)
            bans += self.judge_before(accusing)
        return bans

    def _commitment(self, peer: int, posting: Posting) -> None:
        if peer in self.roster.place_of:
            posting["loss"] = self.gradients.loss(peer)
        if not self.rules.verifies:
            return
        posting["accuses"] = self.accused_before.get(peer, False)
        posting["params"] = np.frombuffer(self.params, dtype=np.uint8)
        opened = lottery.secret(self.rules.seed, self.step, self.number, peer)
        committed = lottery.commitment(self.step, self.number, peer, opened)
        posting["commitment"] = np.frombuffer(committed, dtype=np.uint8)
        if peer not in self.roster.place_of:
            return
        row = self.gradients.sent(peer)
        for part, where in enumerate(self.parts):
            piece = row[where]
            posting["finite"][part] = flag = is_finite(piece)
            digest = part_digest(self.step, self.number, peer, part, piece, flag)
            posting["digests"][part] = np.frombuffer(digest, dtype=np.uint8)

    def _scatter_and_clip(self) -> list[Ban]:
        with self.watch("scatter"):
            self._scatter()
        with self.watch("clip"):
            self._clip()
        with self.watch("aggregate"):
            said = self._round(Phase.AGGREGATE, self.live, self._own_aggregate)
        self.aggregates = said
        bans = self._absent_or_eliminated(said)
        if not bans and self.rules.verifies:
            bans = verdicts.false_emptiness(said, self.active, self._finite())
        return bans

    def _scatter(self) -> None:
        sizes = [where.stop - where.start for where in self.parts]
        expected = {
            (sender, receiver): size
            for sender in self.active
            for receiver, size in zip(self.active, sizes, strict=True)
            if sender != receiver
        }
        vectors = {
            (sender, receiver): self.gradients.sent(sender)[where]
            for sender in self.places.active
            for receiver, where in zip(self.active, self.parts, strict=True)
        }
        came = self._swap(Phase.SCATTER, vectors, expected)
        for receiver in self.places.active:
            came[receiver, receiver] = vectors[receiver, receiver]
        self._complaints.clear()
        for pair in ((one, other) for other in self.places.active for one in self.active):
            if self._is_as_committed(*pair, came.get(pair)):
                self.received[pair] = came[pair]
            elif pair[0] != pair[1]:
                self._complaints.add((pair[1], pair[0]))

    def _is_as_committed(self, sender: int, receiver: int, piece: Tensor | None) -> bool:
        """Whether a part is what its sender committed to; one that is not finite is just that."""
        if piece is None or not self.rules.verifies or sender == receiver:
            return piece is not None
        said, part = self._committed[sender], self.roster.place_of[receiver]
        if not said["finite"][part]:
            return True
        digest = part_digest(self.step, self.number, sender, part, piece, True)
        return digest == said["digests"][part].tobytes() and is_finite(piece)

    def _clip(self) -> None:
        for peer in self.places.active:
            where = self.parts[self.roster.place_of[peer]]
            pieces = [self.received.get((sender, peer)) for sender in self.active]
            usable = [piece for piece in pieces if piece is not None and is_finite(piece)]
            size = where.stop - where.start
            rows = torch.stack(usable) if usable else torch.empty(0, size)
            self._centres[peer] = found = self.rules.aggregate(rows, where)
            self._own[peer] = self.cheating.aggregated(self, peer, found.point)

    def _own_aggregate(self, peer: int, posting: Posting) -> None:
        self._note_complaints(peer, posting)
        if peer not in self._own:
            return
        found, point = self._centres[peer], self._own[peer]
        posting["iterations"], posting["clipped"] = found.iterations, found.clipped
        posting["residual"] = found.residual
        if self.rules.verifies:
            posting["finite"] = flag = is_finite(point)
            digest = aggregate_digest(self.step, self.number, peer, point, flag)
            posting["digest"] = np.frombuffer(digest, dtype=np.uint8)

    def _reveal(self) -> list[Ban]:
        with self.watch("reveal"):
            said = self._round(Phase.REVEAL, self.live, self._opened)
        self.drawn = lottery.combined(posting["secret"].tobytes() for posting in said.values())
        return verdicts.false_secrets(self._committed, said, self.live, self.step, self.number)

    def _opened(self, peer: int, posting: Posting) -> None:
        opened = lottery.secret(self.rules.seed, self.step, self.number, peer)
        posting["secret"], posting["salt"] = (np.frombuffer(it, dtype=np.uint8) for it in opened)

    def _gather(self) -> list[Ban]:
        with self.watch("gather"):
            held = self._gathered()
            self.aggregate = torch.cat([self._first(held, peer) for peer in self.active])
        with self.watch("sums"):
            if self.rules.verifies:
                self._find_numbers()
            expected = (*self.live, *self.places.observers)
            said = self._round(Phase.SUMS, expected, self._own_numbers)
        self._summed = said
        if bans := self._absent_or_eliminated(said):
            return bans
        with self.watch("gather"):
            self._fetch_again(said, held)
        return []

    def _gathered(self) -> Rows:
        """Swap the aggregates; by aggregator and reader of this process, what is as committed."""
        readers = (*self.live, *self.places.observers)
        sizes = [where.stop - where.start for where in self.parts]
        expected = {
            (sender, reader): size
            for sender, size in zip(self.active, sizes, strict=True)
            for reader in readers
            if reader != sender
        }
        vectors = {
            (sender, reader): self._own[sender]
            for sender in self.places.active
            for reader in readers
            if reader != sender
        }
        came = self._swap(Phase.GATHER, vectors, expected)
        came |= {(peer, peer): self._own[peer] for peer in self.places.active}
        self._complaints.clear()
        held: Rows = {}
        for sender in self.active:
            known: dict[int, bool] = {}  # by address: one process may have it many times
            for reader in self.places.readers:
                vector = came.get((sender, reader))
                if vector is not None:
                    address = vector.data_ptr()
                    if address not in known:
                        known[address] = self._is_aggregate(sender, vector)
                    if known[address]:
                        held[sender, reader] = vector
                        continue
                if sender != reader:
                    self._complaints.add((reader, sender))
        return held

    def _is_aggregate(self, sender: int, vector: Tensor) -> bool:
        if not self.rules.verifies:
            return True
        said = self.aggregates[sender]
        if not said["finite"]:
            return True
        digest = aggregate_digest(self.step, self.number, sender, vector, True)
        return digest == said["digest"].tobytes() and is_finite(vector)

    def _first(self, held: Rows, sender: int) -> Tensor:
        """What some reader of this process has of an aggregator; NaN where none has it yet."""
        where = self.parts[self.roster.place_of[sender]]
        missing = torch.full((where.stop - where.start,), torch.nan)
        there = (held.get((sender, reader)) for reader in self.places.readers)
        found = next((vector for vector in there if vector is not None), missing)
        if self.rules.verifies and not self.aggregates[sender]["finite"]:
            return missing
        return found.cpu()

    def _fetch_again(self, said: Postings, held: Rows) -> None:
        """Let an observer that an aggregator cheated alone have its part from another peer."""
        lacking = {
            (observer, peer)
            for observer in self.places.observers
            if observer in said
            for peer in flagged(said[observer]["complaints"])
            if peer in self.roster.place_of
        }
        tried: dict[tuple[int, int], int] = dict.fromkeys(lacking, 0)
        while lacking:
            asked = {}
            for observer, peer in sorted(lacking):
                others = [one for one in self.live if one != peer]
                asked[observer, peer] = others[tried[observer, peer] % len(others)]
                tried[observer, peer] += 1
            lacking = self._resend(asked, held)

    def _resend(self, asked: dict[tuple[int, int], int], held: Rows) -> set[tuple[int, int]]:
        """Swap some parts again, one a pair of ids at a time; return what is still missing."""
        own = -1 - self.places.rank
        for (observer, peer), other in asked.items():
            size = self._size(peer)
            vectors = {}
            if other in self.places.live and (peer, other) in held:
                vectors = {(other, observer): held[peer, other]}
            came = self._swap(Phase.GATHER, vectors, {(other, observer): size})
            vector = came.get((other, observer))
            if observer == own and vector is not None and self._is_aggregate(peer, vector):
                held[peer, own] = vector
        expected = sorted({observer for observer, _ in asked})
        self._complaints = {
            pair
            for pair in asked
            if pair[0] == own
            and pair not in {(own, sender) for sender, reader in held if reader == own}
        }
        said = self._round(Phase.SUMS, expected, self._note_complaints)
        if own in self.places.observers:
            self.aggregate = torch.cat([self._first(held, peer) for peer in self.active])
        return {
            (observer, peer)
            for observer, peer in asked
            if observer in said and peer in flagged(said[observer]["complaints"])
        }

    def _find_numbers(self) -> None:
        """Compute the sums of this process's peers, and of all rows in the parts that they clip."""
        count, projections = len(self.parts), self.rules.projections
        mine = self.places.active
        self._numbers = {peer: (np.zeros((count, projections)), np.zeros(count)) for peer in mine}
        for part, (aggregator, where) in enumerate(zip(self.active, self.parts, strict=True)):
            pieces = {peer: self.gradients.sent(peer)[where] for peer in mine}
            others = {}
            if aggregator in self._own:
                others = {
                    sender: self.received[sender, aggregator]
                    for sender in self.active
                    if (sender, aggregator) in self.received
                }
            known = {piece.data_ptr(): piece for piece in [*pieces.values(), *others.values()]}
            found = self._numbers_of(part, known)
            for peer, piece in pieces.items():
                if self._committed[peer]["finite"][part]:
                    s, nu = found[piece.data_ptr()]
                    self._numbers[peer][0][part], self._numbers[peer][1][part] = s, nu
            zeros = np.zeros(projections), np.zeros(1)[0]
            for sender, piece in others.items():
                flag = self._committed[sender]["finite"][part]
                s, nu = found[piece.data_ptr()] if flag else zeros
                self._v1[sender, aggregator] = s.tobytes(), nu.tobytes()

    def _numbers_of(
        self, part: int, pieces: dict[int, Tensor]
    ) -> dict[int, tuple[np.ndarray, np.float64]]:
        """By address the numbers of some rows in a part."""
        where = self.parts[part]
        drawn = lottery.directions(
            self.drawn, part, self.rules.projections, where.stop - where.start
        )
        rows = list(pieces.values())
        flags = [is_finite(row) for row in rows]
        s, nu = sums.numbers(rows, flags, self.aggregate[where], drawn, self.rules.clipping.tau)
        return {address: (s[at], nu[at]) for at, address in enumerate(pieces)}

    def _own_numbers(self, peer: int, posting: Posting) -> None:
        self._note_complaints(peer, posting)
        if self.rules.verifies and peer in self._numbers:
            posting["s"], posting["nu"] = self._numbers[peer]

    def _check_sums(self) -> list[Ban]:
        said, active = self._summed, self.active
        s, nu = column(said, active, "s"), column(said, active, "nu")
        counted = self._finite()
        self.distances = np.where(counted, nu, np.nan)
        self.posted = Posted(
            self.step, self.number, active, self.drawn, self.rules.clipping.tau, self.aggregate,
            counted, column(self._committed, active, "digests"), s, nu,
        )  # fmt: skip
        with self.watch("verdict"):
            accusations, bans = self._first_verification(said)
            norms = torch.stack(
                [self.aggregate[where].double().norm().nan_to_num() for where in self.parts]
            )
            there = torch.from_numpy(counted) & self._middles_finite()
            tensors = sums.as_tensor(s), sums.as_tensor(nu)
            wrong = sums.unbalanced(*tensors, there, norms, self.rules.clipping)
            bans += verdicts.unexplained(flagged(wrong.numpy()), active, accusations)
            if accusations:
                bans += verdicts.accused(
                    accusations, self._findings(accusations), active, accusations
                )
            far = sums.suspicious(tensors[1], there, self.rules.delta_max)
        if bans:
            return bans
        with self.watch("trial"):
            return self._averaging_checked(flagged(far.numpy()))

    def _middles_finite(self) -> Tensor:
        return torch.tensor([is_finite(self.aggregate[where]) for where in self.parts])

    def _first_verification(self, said: Postings) -> tuple[list[tuple[int, int]], list[Ban]]:
        """V1: each aggregator compares what its senders posted with what it computed itself."""
        accusing: set[tuple[int, int]] = set()
        for (sender, aggregator), (s, nu) in self._v1.items():
            part = self.roster.place_of[aggregator]
            posting = said[sender]
            same = posting["s"][part].tobytes() == s and posting["nu"][part].tobytes() == nu
            if not same and sender != aggregator:
                accusing.add((aggregator, sender))

        def accuse(peer: int, posting: Posting) -> None:
            for accuser, other in accusing:
                if accuser == peer:
                    posting["accuses"][other] = 1

        verdict = self._round(Phase.VERDICT, self.live, accuse)
        accusations = [
            (accuser, other)
            for accuser, posting in verdict.items()
            for other in flagged(posting["accuses"])
            if accuser in self.roster.place_of and other in self.roster.place_of
        ]
        self.counts.accusations += len(accusations)
        return accusations, verdicts.absent(self.live, verdict)

    def _findings(self, accusations: Iterable[tuple[int, int]]) -> dict[int, Finding]:
        """What everybody finds who computes the accused peers' rows again."""
        assert self.posted is not None
        return {
            peer: self.posted.finding(peer, self.gradients.again(peer))
            for peer in sorted({other for _, other in accusations})
        }

    def _averaging_checked(self, parts: Sequence[int]) -> list[Ban]:
        """CHECKAVERAGING: all show their rows of some parts, and all clip them again."""
        if not parts or self.posted is None:
            return []
        self.counts.trials += len(parts)
        wheres = [self.parts[part] for part in parts]
        size = sum(where.stop - where.start for where in wheres)

        def show(peer: int, posting: Posting) -> None:
            row = self.gradients.sent(peer)
            posting["row"] = torch.cat([row[where] for where in wheres]).numpy()

        said = self._round(Phase.EVIDENCE, self.active, show, evidence_form(size))
        shown: dict[int, list[Tensor]] = {}
        for peer, posting in said.items():
            row = torch.from_numpy(posting["row"].copy())
            shown[peer] = list(row.split([where.stop - where.start for where in wheres]))
        bans = []
        for place, part in enumerate(parts):
            pieces = {peer: rows[place] for peer, rows in shown.items()}
            bans += self._part_checked(part, pieces)
        return list({ban.peer: ban for ban in bans}.values())

    def _part_checked(self, part: int, pieces: dict[int, Tensor]) -> list[Ban]:
        """Judge the aggregator of a part, and those who lied about sums in it."""
        aggregator, posted, bans = self.active[part], self.posted, []
        assert posted is not None
        for place, peer in enumerate(self.active):
            flag = bool(posted.finite[place, part])
            digest = posted.digests[place, part].tobytes()
            piece = pieces.get(peer)
            if piece is None or (
                flag and digest != part_digest(self.step, self.number, peer, part, piece, True)
            ):
                bans.append(Ban(peer, Reason.NO_EVIDENCE))
        if bans:
            return bans
        usable = [peer for place, peer in enumerate(self.active) if posted.finite[place, part]]
        rows = torch.stack([pieces[peer] for peer in usable])
        point = self.rules.aggregate(rows, self.parts[part]).point
        digest = aggregate_digest(self.step, self.number, aggregator, point, is_finite(point))
        if digest != self.aggregates[aggregator]["digest"].tobytes():
            bans.append(Ban(aggregator, Reason.WRONG_AGGREGATE))
        s, nu = sums.numbers(
            [pieces[peer] for peer in usable], [True] * len(usable),
            self.aggregate[self.parts[part]], posted.directions(part), posted.tau,
        )  # fmt: skip
        for at, peer in enumerate(usable):
            place = self.roster.place_of[peer]
            if s[at].tobytes() != posted.s[place, part].tobytes():
                bans.append(Ban(peer, Reason.WRONG_SUM))
            elif nu[at].tobytes() != posted.nu[place, part].tobytes():
                bans.append(Ban(peer, Reason.WRONG_NORM))
            else:
                continue
            if peer != aggregator:
                bans.append(Ban(aggregator, Reason.COVERED, peer))
        return bans

    # What the phases are made of.

    def _size(self, peer: int) -> int:
        where = self.parts[self.roster.place_of[peer]]
        return where.stop - where.start

    def _finite(self) -> np.ndarray:
        """``[n, n]`` bool: whether a peer's row is finite in a part, as it said."""
        return column(self._committed, self.active, "finite").astype(bool)

    def _note_complaints(self, peer: int, posting: Posting) -> None:
        for one, other in self._complaints:
            if one == peer:
                posting["complaints"][other] = 1

    def _absent_or_eliminated(self, said: Postings) -> list[Ban]:
        bans = verdicts.absent(self.live, said)
        there = [peer for peer in self.live if peer in said]
        complaints = [
            (peer, other)
            for peer in there
            for other in flagged(said[peer]["complaints"])
            if other in self.roster.place_of
        ]
        found = verdicts.eliminated(complaints, there)
        self.counts.eliminations += sum(ban.reason is Reason.ELIMINATED for ban in found) // 2
        return bans + found

    def _round(
        self,
        phase: Phase,
        expected: Sequence[int],
        write: Callable[[int, Posting], None],
        of: np.dtype[np.void] | None = None,
    ) -> dict[int, Posting]:
        """Let this process's ids post; return what all posted, by id."""
        rules = self.rules
        if of is None:
            of = form(phase, rules.num_peers, len(self.parts), rules.projections, rules.verifies)
        posts = {}
        for one in expected:
            if one in self.places.live or one in self.places.readers:
                posting = blank(of)
                write(one, posting)
                kept = self.cheating.posted(self, phase, one, posting)
                if kept is not None:
                    posts[one] = kept.tobytes()
        bundle = self.transport.round(self.step, posts, expected, of.itemsize)
        self.counts.control += of.itemsize * sum(one >= 0 for one in bundle)
        return unpacked(bundle, of)

    def _swap(self, phase: Phase, vectors: Rows, expected: dict[tuple[int, int], int]) -> Rows:
        """Send vectors, as far as they are expected and liars do send them."""
        sent = {}
        for pair, vector in vectors.items():
            if pair in expected:
                kept = self.cheating.sent(self, phase, *pair, vector)
                if kept is not None:
                    sent[pair] = kept
        self.counts.data += sum(4 * size for (_, to), size in expected.items() if to >= 0)
        return self.transport.swap(self.step, sent, expected)
