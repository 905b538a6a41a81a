"""The form of what goes between peers.

Each id that may post has a cell, and a byte in it says if it did. Vectors are float32, and those
from one rank to another go in an order that both know.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.clusters.seats import Seats
from byzshield_exp.errors import RunError

Key = TypeVar("Key")
Pair = tuple[int, int]  # sender and receiver


def by_rank(expected: Iterable[int], seats: Seats) -> dict[int, list[int]]:
    """Map each rank that plays some of these ids to them, in their order."""
    found: dict[int, list[int]] = {}
    for one in expected:
        found.setdefault(seats.rank_of_id(one), []).append(one)
    return found


def pack(posts: Mapping[Key, bytes], keys: Sequence[Key], size: int) -> np.ndarray:
    """Return the cells ``[len(keys), 1 + size]``.

    Raises:
        ValueError: if a post has another size.
    """
    cells = np.zeros((len(keys), 1 + size), dtype=np.uint8)
    for place, key in enumerate(keys):
        if key in posts:
            if len(posts[key]) != size:
                raise ValueError(f"{key} posts {len(posts[key])} bytes instead of {size}")
            cells[place, 0] = 1
            cells[place, 1:] = np.frombuffer(posts[key], dtype=np.uint8)
    return cells


def unpack(
    cells: bytes | bytearray | memoryview | np.ndarray, keys: Sequence[Key], size: int
) -> dict[Key, bytes]:
    """Read what :func:`pack` made; any bytes of the right number are cells."""
    table = np.frombuffer(cells, dtype=np.uint8)[: len(keys) * (1 + size)].reshape(-1, 1 + size)
    return {key: cell[1:].tobytes() for key, cell in zip(keys, table, strict=True) if cell[0]}


def routes(expected: Iterable[Pair], seats: Seats) -> dict[tuple[int, int], list[Pair]]:
    """Map each two ranks to the pairs whose vectors go from the first to the second."""
    found: dict[tuple[int, int], list[Pair]] = {}
    for pair in expected:
        ranks = seats.rank_of_id(pair[0]), seats.rank_of_id(pair[1])
        found.setdefault(ranks, []).append(pair)
    return found


def check(vectors: Mapping[Pair, Tensor], expected: Mapping[Pair, int]) -> None:
    """Look at vectors before they are sent.

    Raises:
        RunError: if one has another type or size than its receiver expects.
    """
    for (sender, receiver), vector in vectors.items():
        size = expected.get((sender, receiver))
        if vector.dtype != torch.float32 or vector.shape != (size,):
            raise RunError(
                f"{sender} would send {receiver} {tuple(vector.shape)} numbers of {vector.dtype} "
                f"instead of {size} of torch.float32"
            )
