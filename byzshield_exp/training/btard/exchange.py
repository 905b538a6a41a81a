"""The swaps SCATTER and GATHER, and what aggregators do in between."""

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.errors import TooFewReplicas
from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard import verdicts
from byzshield_exp.training.btard.attempt import Attempt, Rows, complaints_in
from byzshield_exp.training.btard.postings import Phase, Posting, aggregate_digest, part_digest
from byzshield_exp.training.btard.verdicts import Ban


def scatter(attempt: Attempt) -> None:
    """Send each part of each row to its aggregator, who compares it with the commitment."""
    expected = {
        (sender, receiver): size
        for sender in attempt.active
        for receiver, size in zip(attempt.active, attempt.sizes, strict=True)
        if sender != receiver
    }
    vectors = {
        (sender, receiver): attempt.gradients.sent(sender)[where]
        for sender in attempt.places.active
        for receiver, where in zip(attempt.active, attempt.parts, strict=True)
    }
    own = {(peer, peer): vectors.pop((peer, peer)) for peer in attempt.places.active}
    came = attempt.swap(Phase.SCATTER, vectors, expected) | own
    attempt.complaints.clear()
    for pair in ((one, other) for other in attempt.places.active for one in attempt.active):
        if pair in came and (pair in own or _is_part(attempt, *pair, came[pair])):
            attempt.received[pair] = came[pair]
        else:
            attempt.complaints.add((pair[1], pair[0]))


def clip(attempt: Attempt) -> list[Ban]:
    """Aggregate the rows of this process's parts, and commit to the result."""
    for peer in attempt.places.active:
        usable = [
            attempt.received[sender, peer]
            for sender in attempt.active
            if (sender, peer) in attempt.received and _takes_part(attempt, sender, peer)
        ]
        size = attempt.sizes[attempt.part_of(peer)]
        rows = torch.stack(usable) if usable else torch.empty(0, size)
        attempt.centres[peer] = found = attempt.rules.aggregate(rows)
        attempt.own[peer] = attempt.cheating.aggregated(attempt, peer, found.point)
    said = attempt.round(
        Phase.AGGREGATE, attempt.live, lambda peer, posting: _write(attempt, peer, posting)
    )
    attempt.aggregates = said
    bans = attempt.absent_or_eliminated(said)
    if not bans and attempt.rules.verifies:
        bans = verdicts.false_emptiness(said, attempt.active, attempt.finite())
    return bans


def gather(attempt: Attempt) -> Rows:
    """Send the aggregates to all; what came as it was committed to, by aggregator and reader."""
    readers = (*attempt.live, *attempt.places.observers)
    pairs = {
        (sender, reader): size
        for sender, size in zip(attempt.active, attempt.sizes, strict=True)
        for reader in readers
        if reader != sender
    }
    vectors = {
        (sender, reader): attempt.own[sender] for sender, reader in pairs if sender in attempt.own
    }
    came = attempt.swap(Phase.GATHER, vectors, pairs)
    came |= {(peer, peer): attempt.own[peer] for peer in attempt.places.active}
    attempt.complaints.clear()
    held: Rows = {}
    for sender in attempt.active:
        known: dict[int, bool] = {}  # by address: a process may have it many times
        for reader in attempt.places.readers:
            vector = came.get((sender, reader))
            if vector is not None and vector.data_ptr() not in known:
                known[vector.data_ptr()] = _is_aggregate(attempt, sender, vector)
            if vector is not None and known[vector.data_ptr()]:
                held[sender, reader] = vector
            elif sender != reader:
                attempt.complaints.add((reader, sender))
    attempt.aggregate = _joined(attempt, held)
    return held


def fetch_again(attempt: Attempt, held: Rows) -> None:
    """Let an observer have a part that its aggregator kept from it alone from another peer.

    An observer is no peer, so its complaints ban nobody; other peers have the bytes. It may also
    play banned liars, and complain for ever: each other peer is asked once.

    Raises:
        TooFewReplicas: if this process is an observer and nobody gives it a part.
    """
    observers = attempt.places.observers
    lacking = complaints_in(attempt.summed, observers, attempt.active)
    for tries in range(len(attempt.live) - 1):
        if lacking:
            lacking = _fetch_from_next(attempt, held, sorted(lacking), tries)
    if any(observer in attempt.places.readers for observer, _ in lacking):
        raise TooFewReplicas(
            f"step {attempt.step + 1}: no peer gives rank {attempt.places.rank} a part"
        )


def _fetch_from_next(
    attempt: Attempt, held: Rows, lacking: list[tuple[int, int]], tries: int
) -> list[tuple[int, int]]:
    """Ask another peer for each missing part; return what is missing still."""
    me = -1 - attempt.places.rank
    attempt.complaints.clear()
    for observer, sender in lacking:
        other = [peer for peer in attempt.live if peer != sender][tries]
        vectors = {(other, observer): held[sender, other]} if (sender, other) in held else {}
        expected = {(other, observer): attempt.sizes[attempt.part_of(sender)]}
        vector = attempt.swap(Phase.GATHER, vectors, expected).get((other, observer))
        if observer == me:
            if vector is not None and _is_aggregate(attempt, sender, vector):
                held[sender, me] = vector
            else:
                attempt.complaints.add((me, sender))
    observers = sorted({observer for observer, _ in lacking})
    said = attempt.round(Phase.SUMS, observers, attempt.note_complaints)
    if me in observers:
        attempt.aggregate = _joined(attempt, held)
    return complaints_in(said, observers, attempt.active)


def _is_part(attempt: Attempt, sender: int, receiver: int, piece: Tensor) -> bool:
    """Whether a part is what its sender committed to; one that is not finite is just that."""
    if not attempt.rules.verifies:
        return True
    said, part = attempt.committed[sender], attempt.part_of(receiver)
    if not said["finite"][part]:
        return True
    digest = part_digest(attempt.step, attempt.number, sender, part, piece, True)
    return digest == said["digests"][part].tobytes() and is_finite(piece)


def _takes_part(attempt: Attempt, sender: int, receiver: int) -> bool:
    """Whether a part that came is clipped: not if its sender said that it is not finite."""
    said = attempt.committed[sender]
    if attempt.rules.verifies and not said["finite"][attempt.part_of(receiver)]:
        return False  # sums leave it out as well, whatever came
    return is_finite(attempt.received[sender, receiver])


def _is_aggregate(attempt: Attempt, sender: int, vector: Tensor) -> bool:
    """Whether an aggregate is what its aggregator committed to."""
    if not attempt.rules.verifies or not attempt.aggregates[sender]["finite"]:
        return True
    digest = aggregate_digest(attempt.step, attempt.number, sender, vector, True)
    said = attempt.aggregates[sender]["digest"].tobytes()
    return digest == said and is_finite(vector)


def _joined(attempt: Attempt, held: Rows) -> Tensor:
    """Put the aggregates together; NaN where one is missing or has no finite row."""
    found = []
    for sender, size in zip(attempt.active, attempt.sizes, strict=True):
        there = [held[sender, one] for one in attempt.places.readers if (sender, one) in held]
        if attempt.rules.verifies and not attempt.aggregates[sender]["finite"]:
            there = []
        found.append(there[0].cpu() if there else torch.full((size,), torch.nan))
    return torch.cat(found)


def _write(attempt: Attempt, peer: int, posting: Posting) -> None:
    attempt.note_complaints(peer, posting)
    if peer not in attempt.own:
        return
    found, point = attempt.centres[peer], attempt.own[peer]
    posting["iterations"], posting["clipped"] = found.iterations, found.clipped
    posting["residual"] = found.residual
    if attempt.rules.verifies:
        posting["finite"] = flag = is_finite(point)
        digest = aggregate_digest(attempt.step, attempt.number, peer, point, flag)
        posting["digest"] = np.frombuffer(digest, dtype=np.uint8)
