"""The vote that suits where the replicas are."""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from byzshield_exp.votes.bytewise import majority
from byzshield_exp.votes.digested import digest
from byzshield_exp.votes.vote import vote_traits


@vote_traits(is_exact=True, stands_for=lambda is_local: majority if is_local else digest)
def auto(replicas: Sequence[Sequence[Tensor | None]]) -> Int[Tensor, "f r"]:
    """Label replicas by their bytes: in one process ``majority``, under processes ``digest``.

    Called as it is, with rows at hand, it is ``majority``; a run takes the one that suits it.
    """
    return majority(replicas)
