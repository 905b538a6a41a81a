"""Groups of permutations of the workers."""

from collections.abc import Sequence

import numpy as np


def generated(generators: Sequence[np.ndarray], most: int = 6000) -> np.ndarray:
    """The first ``most`` elements ``[g, K]`` of the group that permutations generate.

    Breadth first, the identity at the head; every part of a group serves the search, the whole
    serves it best.
    """
    size = len(generators[0])
    identity = np.arange(size)
    found = {identity.tobytes(): identity}
    frontier = [identity]
    while frontier and len(found) < most:
        fresh = []
        for element in frontier:
            for generator in generators:
                product = np.ascontiguousarray(generator[element])
                if product.tobytes() not in found:
                    found[product.tobytes()] = product
                    fresh.append(product)
        frontier = fresh
    return np.stack(list(found.values())[:most])
