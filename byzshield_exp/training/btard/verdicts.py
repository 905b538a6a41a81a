"""Who is banned, as pure functions of what was posted: all honest peers find the same."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byzshield_exp.training.btard.lottery import commitment
from byzshield_exp.training.btard.postings import Postings

NOBODY = -1


class Reason(IntEnum):
    """Why a peer was banned; the names are those of the records."""

    ABSENT = 0  # it did not post
    OTHER_PARAMETERS = 1
    WRONG_GRADIENT = 2  # a validator, or whoever accused it, was right
    WRONG_SUM = 3
    WRONG_NORM = 4
    WRONG_AGGREGATE = 5
    COVERED = 6  # it aggregated, and did not accuse who lied about a sum
    FALSE_ACCUSATION = 7
    ELIMINATED = 8  # of a pair of which one is guilty
    ACCUSED_BY_MOST = 9  # of other bytes than it had committed to, or none
    FALSE_SECRET = 10  # opened, not the one committed to
    NO_EVIDENCE = 11
    COIN = 12  # of ban=bernoulli


class Ban(NamedTuple):
    """One peer's.

    Attributes:
        peer: who.
        reason: why.
        by: by whom; ``NOBODY``: by what was posted.
    """

    peer: int
    reason: Reason
    by: int = NOBODY


def absent(expected: Iterable[int], postings: Postings) -> list[Ban]:
    """Those who posted nothing."""
    return [Ban(peer, Reason.ABSENT) for peer in expected if peer not in postings]


def outvoted(postings: Postings, name: str, peers: Sequence[int]) -> list[Ban]:
    """Those whose digest of the parameters is not the most common one."""
    said = {peer: postings[peer][name].tobytes() for peer in peers if peer in postings}
    every = list(said.values())
    common = max(every, key=every.count, default=b"")
    return [Ban(peer, Reason.OTHER_PARAMETERS) for peer, digest in said.items() if digest != common]


def eliminated(complaints: Collection[tuple[int, int]], live: Collection[int]) -> list[Ban]:
    """ELIMINATE: only the two of a pair know who of them is guilty, so both go.

    A peer of whom more than half of the live peers complain goes alone. Pairs are taken in order,
    and each peer is in one at most: a process that dies takes nobody along.

    Args:
        complaints: (who complains, of whom).
        live: all who are there.
    """
    pairs = sorted({(one, other) for one, other in complaints if one != other})
    pairs = [pair for pair in pairs if pair[0] in live and pair[1] in live]
    accused = sorted({other for _, other in pairs})
    alone = [other for other in accused if 2 * sum(pair[1] == other for pair in pairs) > len(live)]
    bans = [Ban(other, Reason.ACCUSED_BY_MOST) for other in alone]
    gone = set(alone)
    for one, other in pairs:
        if one not in gone and other not in gone:
            gone |= {one, other}
            bans += [Ban(one, Reason.ELIMINATED, other), Ban(other, Reason.ELIMINATED, one)]
    return bans


def false_secrets(
    committed: Postings, opened: Postings, peers: Iterable[int], step: int, attempt: int
) -> list[Ban]:
    """Those who opened no secret, or another one than they had committed to."""
    bans = absent(peers, opened)
    for peer, posting in opened.items():
        said = posting["secret"].tobytes(), posting["salt"].tobytes()
        if commitment(step, attempt, peer, said) != committed[peer]["commitment"].tobytes():
            bans.append(Ban(peer, Reason.FALSE_SECRET))
    return bans


def false_emptiness(
    aggregates: Postings, active: Sequence[int], counted: NDArray[np.bool]
) -> list[Ban]:
    """Aggregators who say that their part is not finite although a row of it is, or vice versa.

    Args:
        aggregates: as posted.
        active: in the order of their parts.
        counted: ``[n, n]`` bool, whether a peer's row is finite in a part.
    """
    return [
        Ban(peer, Reason.WRONG_AGGREGATE)
        for peer, some in zip(active, counted.any(axis=0).reshape(-1), strict=True)
        if peer in aggregates and bool(aggregates[peer]["finite"]) != bool(some)
    ]


class Recomputed(NamedTuple):
    """What everybody finds who computes an accused peer's row again.

    Attributes:
        is_row_true: whether it had committed to that row.
        wrong_sums: places of the parts where its ``s`` is another one.
        wrong_norms: the same of ``nu``.
    """

    is_row_true: bool
    wrong_sums: tuple[int, ...] = ()
    wrong_norms: tuple[int, ...] = ()

    @property
    def reason(self) -> Reason | None:
        """What the peer is guilty of, if of anything."""
        if not self.is_row_true:
            return Reason.WRONG_GRADIENT
        if self.wrong_sums:
            return Reason.WRONG_SUM
        return Reason.WRONG_NORM if self.wrong_norms else None

    @property
    def wrong_parts(self) -> list[int]:
        """Places of all parts where it lied about a number."""
        return sorted({*self.wrong_sums, *self.wrong_norms})


def accused(
    accusations: Collection[tuple[int, int]],
    findings: Mapping[int, Recomputed],
    active: Sequence[int],
    spoken: Collection[tuple[int, int]] = (),
) -> list[Ban]:
    """ACCUSE: the accused, and who covered it, or else the accusers.

    Args:
        accusations: (accuser, accused).
        findings: of each that is accused.
        active: of that step, in the order of their parts.
        spoken: (aggregator, peer) of the aggregators who had accused a peer in V1 of that step.
    """
    bans: dict[int, Ban] = {}
    for accuser, peer in sorted(accusations):
        reason = findings[peer].reason
        if reason is None:
            bans.setdefault(accuser, Ban(accuser, Reason.FALSE_ACCUSATION, peer))
        else:
            bans.setdefault(peer, Ban(peer, reason, accuser))
    for peer in sorted({peer for _, peer in accusations}):
        for aggregator in (active[part] for part in findings[peer].wrong_parts):
            if aggregator != peer and (aggregator, peer) not in spoken:
                bans.setdefault(aggregator, Ban(aggregator, Reason.COVERED, peer))
    return list(bans.values())


def unexplained(
    parts: Iterable[int], active: Sequence[int], accusations: Collection[tuple[int, int]]
) -> list[int]:
    """V2: the parts whose sums are not balanced and whose aggregators accuse nobody of that.

    Args:
        parts: places of the parts that are not balanced.
        active: in the order of their parts.
        accusations: (accuser, accused) of V1.
    """
    speaking = {accuser for accuser, _ in accusations}
    return [part for part in parts if active[part] not in speaking]
