"""Prime numbers and prime powers, and the sizes next to an invalid one."""

from collections.abc import Callable
from math import isqrt


def is_prime(number: int) -> bool:
    """Whether ``number`` is prime (trial division; the numbers here are below 10,000)."""
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def prime_power(number: int) -> tuple[int, int] | None:
    """``(p, k)`` with ``number = p ** k`` and ``p`` prime, None if there is none."""
    divisors = range(2, isqrt(number) + 1)
    prime = next((divisor for divisor in divisors if number % divisor == 0), number)
    power = 0
    while number > 1 and number % prime == 0:
        number //= prime
        power += 1
    return (prime, power) if power and number == 1 else None


def nearest(num_workers: int, sizes: Callable[[int], str | None]) -> str:
    """Describe the nearest valid numbers of workers: ``K=15 (l=5), K=21 (l=7)``.

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
    found += first(range(num_workers + 1, 10 * num_workers + 20_000))
    return "nearest are " + ", ".join(found) if found else "there is no such K"
