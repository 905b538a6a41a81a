"""Prime numbers, and the sizes next to an invalid one."""

from collections.abc import Callable
from math import isqrt


def is_prime(number: int) -> bool:
    """Whether ``number`` is prime (trial division; the numbers here are below 10,000)."""
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def nearest(num_workers: int, sizes: Callable[[int], str | None]) -> str:
    """The valid numbers of workers next below and above, described: ``K=15 (l=5), K=21 (l=7)``.

    Args:
        num_workers: the invalid ``K``.
        sizes: for a ``K``, a note on it if it is valid, else None.
    """

    def first(candidates: range) -> list[str]:
        for candidate in candidates:
            note = sizes(candidate)
            if note is not None:
                return [f"K={candidate} ({note})" if note else f"K={candidate}"]
        return []

    found = first(range(num_workers - 1, 0, -1))
    found += first(range(num_workers + 1, 10 * num_workers + 1000))
    return "nearest are " + ", ".join(found) if found else "there is no such K"
