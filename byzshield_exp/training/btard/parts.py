"""Parts of a vector: one for each peer that aggregates."""

from itertools import pairwise


def parts(size: int, count: int) -> list[slice]:
    """Cut ``range(size)`` into ``count`` parts in order; their sizes differ by at most one.

    Args:
        size: d.
        count: n, at least 1; parts may be empty.
    """
    ends = [place * size // count for place in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]
