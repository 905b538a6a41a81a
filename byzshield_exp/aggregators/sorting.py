"""Sorting networks: fixed steps that sort any rows, for kernels without branches."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def sorting_network(num_rows: int, low: int, high: int) -> np.ndarray:
    """The steps ``[s, 2]`` of Batcher's odd-even merge sort that places low..high-1 depend on.

    Source: Batcher, "Sorting Networks and Their Applications", 1968 (Knuth, TAOCP 3, 5.2.2 M).
    """
    steps = []
    size = 1
    while size < num_rows:
        gap = size
        while gap >= 1:
            for base in range(gap % size, num_rows - gap, 2 * gap):
                for place in range(base, base + min(gap, num_rows - base - gap)):
                    if place // (2 * size) == (place + gap) // (2 * size):
                        steps.append((place, place + gap))
            gap //= 2
        size *= 2
    wanted, needed = set(range(low, high)), []
    for pair in reversed(steps):
        if not wanted.isdisjoint(pair):
            wanted.update(pair)
            needed.append(pair)
    return np.array(needed[::-1], dtype=np.int64).reshape(-1, 2)
