"""WHOM TO BELIEVE: votes label the replicas of a file; labels make winners.

A vote is ``vote(replicas) -> labels [f, r]``. A label is the place, in its file, of the replica
that stands for its class; a replica that did not come is None and has the label ``ABSENT``.
"""

from byzshield_exp.votes.auto import auto
from byzshield_exp.votes.bytewise import majority
from byzshield_exp.votes.counting import (
    ABSENT,
    NO_WINNER,
    count_disagreements,
    is_finite,
    winners,
)
from byzshield_exp.votes.digested import digest
from byzshield_exp.votes.distance import tolerant
from byzshield_exp.votes.vote import VoteTraits, is_exact, reads_digests, resolve, vote_traits

__all__ = [
    "ABSENT",
    "NO_WINNER",
    "VoteTraits",
    "auto",
    "count_disagreements",
    "digest",
    "is_exact",
    "is_finite",
    "majority",
    "reads_digests",
    "resolve",
    "tolerant",
    "vote_traits",
    "winners",
]
