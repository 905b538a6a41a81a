"""Equality of digests: replicas are compared without being there."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from byzshield_exp.votes.counting import ABSENT, as_labels


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


vars(digest)["reads"] = "digests"


def reads_digests(vote: Callable[..., Any]) -> bool:
    """Whether a vote is given digests in place of rows, as its attribute ``reads`` says.

    Arguments bound by ``functools.partial`` and decorators that use ``functools.wraps`` are looked
    through; a function without the attribute reads rows.
    """
    said = (getattr(function, "reads", None) for function in layers(vote))
    return next(filter(None, said), "rows") == "digests"


def layers(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The function and all within it, through ``functools.partial`` and ``functools.wraps``."""
    within: Callable[..., Any] | None = function
    while within is not None:
        yield within
        if isinstance(within, functools.partial):
            within = within.func
        else:
            within = getattr(within, "__wrapped__", None)
