"""The vote that suits where the replicas are."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jaxtyping import Int
from torch import Tensor

from byzshield_exp.votes.bytewise import majority
from byzshield_exp.votes.digested import digest, layers
from byzshield_exp.votes.distance import check_rtol, tolerant


def auto(replicas: Sequence[Sequence[Tensor | None]]) -> Int[Tensor, "f r"]:
    """Label replicas by their bytes: in one process ``majority``, under processes ``digest``.

    Called as it is, with rows at hand, it is ``majority``; ``resolve`` makes the choice of a run.
    """
    return majority(replicas)


def is_exact(vote: Callable[..., Any]) -> bool:
    """Whether a vote asks that replicas have the same bits; a vote of the user's own may not."""
    return not {auto, majority, digest}.isdisjoint(layers(vote))


def resolve(vote: "partial[Tensor]", is_local: bool) -> "partial[Tensor]":
    """The vote of a run: ``auto`` replaced by what it stands for, any other as it is.

    Args:
        vote: with its arguments bound.
        is_local: whether one process plays everybody.

    Raises:
        ValueError: if an argument of ``tolerant`` is out of its range.
    """
    functions = list(layers(vote))
    if tolerant in functions and "rtol" in vote.keywords:
        check_rtol(vote.keywords["rtol"])
    if auto not in functions:
        return vote
    return partial(majority if is_local else digest)
