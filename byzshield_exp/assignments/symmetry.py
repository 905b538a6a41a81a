"""Groups of permutations of the workers."""

from collections.abc import Sequence

import numpy as np


def generated(generators: Sequence[np.ndarray], most: int = 6000) -> np.ndarray:
    """The first ``most`` elements ``[g, K]`` of the group that permutations generate.

    Breadth first from the identity. The search for the worst case may use any part of the group;
    a larger part prunes more.
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
