"""Equality of digests: replicas are compared before any row is sent."""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from byzshield_exp.votes.counting import ABSENT, as_labels
from byzshield_exp.votes.vote import vote_traits


@vote_traits(reads="digests", is_exact=True)
def digest(replicas: Sequence[Sequence[bytes | None]]) -> Int[Tensor, "f r"]:
    """Label replicas by the digests of their rows: as ``majority``, up to a collision of BLAKE3.

    Args:
        replicas: for each of f files the digests of its r rows; None: it did not come.

    Returns:
        ``[f, r]``; a replica's label is the first place in its file with the same digest.
    """
    return as_labels(
        [[ABSENT if one is None else list(of_file).index(one) for one in of_file]
         for of_file in replicas]
    )  # fmt: skip
