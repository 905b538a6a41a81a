"""Finite fields as tables: elements are 0..n-1, with 0 and 1 the neutral elements."""

from functools import lru_cache

import numpy as np

from byzshield_exp.assignments.primes import is_prime, prime_power

Table = np.ndarray


@lru_cache(maxsize=16)
def field(order: int) -> tuple[Table, Table]:
    """Addition and multiplication tables ``[n, n]`` of the field with ``order`` elements.

    Raises:
        ValueError: if ``order`` is not a prime power.
    """
    if prime_power(order) is None:
        raise ValueError(f"there is no field with {order} elements: it is not a prime power")
    numbers = np.arange(order)
    if is_prime(order):
        return np.add.outer(numbers, numbers) % order, np.multiply.outer(numbers, numbers) % order
    import galois  # slow to import; prime fields do without it

    elements = galois.GF(order).elements
    plus, times = np.add.outer(elements, elements), np.multiply.outer(elements, elements)
    return np.asarray(plus).astype(np.int64), np.asarray(times).astype(np.int64)


def negatives(add: Table) -> Table:
    """``-x`` for every element of a field."""
    return np.asarray(np.argmax(add == 0, axis=1))


def inverses(multiply: Table) -> Table:
    """``1 / x`` for every element of a field; the entry of 0 is 0."""
    return np.asarray(np.argmax(multiply == 1, axis=1))
