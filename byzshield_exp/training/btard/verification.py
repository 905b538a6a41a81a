"""The rounds SUMS and VERDICT: V1, V2 and V3."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard import lottery, sums, verdicts
from byzshield_exp.training.btard.attempt import Attempt, Numbers
from byzshield_exp.training.btard.posted import Posted
from byzshield_exp.training.btard.postings import Phase, Posting, column, flagged
from byzshield_exp.training.btard.verdicts import Ban

Accusations = list[tuple[int, int]]  # accuser, accused


def sum_up(attempt: Attempt) -> list[Ban]:
    """Post sums and distances, and what was missing in GATHER."""
    if attempt.rules.verifies:
        for part in range(len(attempt.parts)):
            _find_numbers(attempt, part)
    expected = (*attempt.live, *attempt.places.observers)
    attempt.summed = attempt.round(
        Phase.SUMS, expected, lambda peer, posting: _write(attempt, peer, posting)
    )
    return attempt.absent_or_eliminated(attempt.summed)


def verify(attempt: Attempt) -> tuple[list[Ban], list[int]]:
    """Check the sums; return bans, and the parts that are to be checked in public."""
    said, active = attempt.summed, attempt.active
    s, nu, counted = column(said, active, "s"), column(said, active, "nu"), attempt.finite()
    attempt.posted = posted = Posted(
        attempt.step, attempt.number, active, attempt.drawn, attempt.rules.clipping.tau,
        attempt.aggregate, counted, column(attempt.committed, active, "digests"), s, nu,
    )  # fmt: skip
    accusations, bans = _first_verification(attempt)
    lengths = sums.lengths_of(attempt.aggregate, attempt.parts)
    clipping, delta_max = attempt.rules.clipping, attempt.rules.delta_max
    wrong = sums.unbalanced(s, nu, counted, lengths, clipping)
    doubtful = verdicts.unexplained(flagged(wrong), active, accusations)
    if accusations:
        accused = sorted({other for _, other in accusations})
        findings = {one: posted.finding(one, attempt.gradients.again(one)) for one in accused}
        bans += verdicts.accused(accusations, findings, active, accusations)
    return bans, sorted({*doubtful, *flagged(sums.suspicious(nu, counted, delta_max))})


def _find_numbers(attempt: Attempt, part: int) -> None:
    """Compute the numbers of this process's peers in a part, and if it is its own, of all rows."""
    aggregator, where = attempt.active[part], attempt.parts[part]
    mine = {peer: attempt.gradients.sent(peer)[where] for peer in attempt.places.active}
    senders = attempt.active if aggregator in attempt.own else ()
    others = {
        sender: attempt.received[sender, aggregator]
        for sender in senders
        if (sender, aggregator) in attempt.received
    }
    found = _numbers_of(attempt, part, [*mine.values(), *others.values()])
    none = np.zeros(attempt.rules.projections), np.zeros(())
    for peer, piece in mine.items():
        blank = np.zeros((len(attempt.parts), attempt.rules.projections))
        s, nu = attempt.numbers.setdefault(peer, (blank, np.zeros(len(attempt.parts))))
        s[part], nu[part] = found[piece.data_ptr()]
    for sender, piece in others.items():
        is_counted = attempt.committed[sender]["finite"][part]
        attempt.expected[sender, aggregator] = found[piece.data_ptr()] if is_counted else none


def _numbers_of(attempt: Attempt, part: int, pieces: Sequence[Tensor]) -> dict[int, Numbers]:
    """By address the numbers of rows in a part; each is computed once."""
    rules, where = attempt.rules, attempt.parts[part]
    known = {piece.data_ptr(): piece for piece in pieces}
    rows = list(known.values())
    drawn = lottery.directions(attempt.drawn, part, rules.projections, attempt.sizes[part])
    flags = [is_finite(row) for row in rows]
    s, nu = sums.numbers(rows, flags, attempt.aggregate[where], drawn, rules.clipping.tau)
    return {address: (s[at], np.asarray(nu[at])) for at, address in enumerate(known)}


def _write(attempt: Attempt, peer: int, posting: Posting) -> None:
    attempt.note_complaints(peer, posting)
    if peer in attempt.numbers:
        posting["s"], posting["nu"] = attempt.numbers[peer]


def _first_verification(attempt: Attempt) -> tuple[Accusations, list[Ban]]:
    """V1: each aggregator compares what its senders posted with what it computed itself."""
    false: Accusations = []
    for (sender, aggregator), (s, nu) in attempt.expected.items():
        said, part = attempt.summed[sender], attempt.part_of(aggregator)
        same = said["s"][part].tobytes() == s.tobytes()
        if not (same and said["nu"][part].tobytes() == nu.tobytes()) and sender != aggregator:
            false.append((aggregator, sender))

    def accuse(peer: int, posting: Posting) -> None:
        posting["accuses"][[other for accuser, other in false if accuser == peer]] = 1

    verdict = attempt.round(Phase.VERDICT, attempt.live, accuse)
    accusations = [
        (accuser, other)
        for accuser, posting in verdict.items()
        for other in flagged(posting["accuses"])
        if attempt.is_active(accuser) and attempt.is_active(other)
    ]
    attempt.counts.accusations += len(accusations)
    return accusations, verdicts.absent(attempt.live, verdict)
