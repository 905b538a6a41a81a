"""What a vote declares about itself, and the questions a run asks a bound vote.

A vote without a declaration is given rows, and honest replicas need not be equal.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

Vote = TypeVar("Vote", bound=Callable[..., Any])


@dataclass(frozen=True)
class VoteTraits:
    """What a vote declares.

    Attributes:
        reads: whether it is given the replicas' ``rows`` or their ``digests``.
        is_exact: whether honest replicas must have the same bits.
        check: ``check(arguments)`` raises ValueError for an argument out of its range.
        stands_for: ``stands_for(is_local)``: the vote that a run uses instead, given whether one
            process plays everybody; None: itself.
    """

    reads: Literal["rows", "digests"] = "rows"
    is_exact: bool = False
    check: Callable[[Mapping[str, Any]], None] = lambda arguments: None
    stands_for: Callable[[bool], Callable[..., Any]] | None = None


_UNDECLARED = VoteTraits()


def vote_traits(**traits: Any) -> Callable[[Vote], Vote]:
    """Declare a vote: the arguments are the attributes of :class:`VoteTraits`."""

    def declare(vote: Vote) -> Vote:
        vote.vote_traits = VoteTraits(**traits)  # type: ignore[attr-defined]
        return vote

    return declare


def reads_digests(vote: Callable[..., Any]) -> bool:
    """Whether a vote is given digests in place of rows."""
    return _traits(vote).reads == "digests"


def is_exact(vote: Callable[..., Any]) -> bool:
    """Whether a vote asks that honest replicas have the same bits."""
    return _traits(vote).is_exact


def resolve(vote: "partial[Any]", is_local: bool) -> "partial[Any]":
    """The vote of a run: ``auto`` replaced by what it stands for, any other as it is.

    Args:
        vote: with its arguments bound.
        is_local: whether rows are at hand: in one process, or on rank 0's GPU.

    Raises:
        ValueError: if an argument is out of its range.
    """
    traits = _traits(vote)
    parameters = inspect.signature(vote).parameters.values()
    traits.check({one.name: one.default for one in parameters})
    return vote if traits.stands_for is None else partial(traits.stands_for(is_local))


def _traits(vote: Callable[..., Any]) -> VoteTraits:
    function = vote.func if isinstance(vote, partial) else vote
    traits: VoteTraits = getattr(function, "vote_traits", _UNDECLARED)
    return traits
