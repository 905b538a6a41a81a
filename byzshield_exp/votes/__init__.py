"""WHOM TO BELIEVE: votes label the replicas of a file; labels make winners.

A vote is ``vote(replicas) -> labels [f, r]``. A label is the place, in its file, of the replica
that stands for its class; a replica that did not come is None and has the label ``ABSENT``.
"""

from byzshield_exp.votes.auto import auto, is_exact, resolve
from byzshield_exp.votes.bytewise import majority
from byzshield_exp.votes.counting import (
    ABSENT,
    NO_WINNER,
    count_disagreements,
    is_finite,
    winners,
)
from byzshield_exp.votes.digested import digest, reads_digests
from byzshield_exp.votes.distance import tolerant

__all__ = [
    "ABSENT",
    "NO_WINNER",
    "auto",
    "count_disagreements",
    "digest",
    "is_exact",
    "is_finite",
    "majority",
    "reads_digests",
    "resolve",
    "tolerant",
    "winners",
]
