"""The compiled part of the coordinate-wise rules: a sorting network over blocks of columns.

A network is a fixed list of compare-and-exchange steps, so that a block of columns is sorted with
vector instructions and without branches; 25 rows take little longer than reading them. numba
infers the types of this function, so mypy does not check them.
"""

from typing import no_type_check

import numpy as np
from numba import njit

_BLOCK = 256  # columns sorted together: n * 1 KiB stay in the first cache, or near it


@njit(nogil=True, cache=True)
@no_type_check
def mean_of_ordered(rows, start, stop, network, low, high, keep, out):
    """Fill ``out[start:stop]`` and return whether all entries of these columns are finite.

    As ``columns.mean_of_ordered``, with the network's steps as ``[s, 2]`` row numbers.
    """
    n = rows.shape[0]
    block = np.empty((n, _BLOCK), rows.dtype)
    doubt = np.zeros(_BLOCK, rows.dtype)  # x - x is 0, or NaN if x is not finite; a NaN stays
    centre = np.empty(_BLOCK, np.float64)
    total = np.empty(_BLOCK, np.float64)
    nearest = np.empty(_BLOCK, np.float64)
    first = np.empty(_BLOCK, np.int64)
    for at in range(start, stop, _BLOCK):
        width = min(_BLOCK, stop - at)
        for i in range(n):
            part = rows[i, at : at + width]  # over rows[i, at + w] the loop would not be vectorised
            line = block[i]
            for w in range(width):
                entry = part[w]
                line[w] = entry
                doubt[w] += entry - entry
            for w in range(width, _BLOCK):
                line[w] = 0
        for step in range(network.shape[0]):
            low_line = block[network[step, 0]]
            high_line = block[network[step, 1]]
            for w in range(_BLOCK):
                a = low_line[w]
                b = high_line[w]
                low_line[w] = a if a < b else b
                high_line[w] = b if a < b else a
        centre[:] = 0
        for i in range(low, high):
            for w in range(_BLOCK):
                centre[w] += block[i, w]
        for w in range(_BLOCK):
            centre[w] /= high - low
        if keep > 0:
            nearest[:] = np.inf
            first[:] = 0
            for s in range(n - keep + 1):
                for w in range(_BLOCK):
                    reach = max(centre[w] - block[s, w], block[s + keep - 1, w] - centre[w])
                    if reach < nearest[w]:
                        nearest[w] = reach
                        first[w] = s
            total[:] = 0
            for i in range(n):
                for w in range(_BLOCK):
                    inside = first[w] <= i and i < first[w] + keep
                    total[w] += block[i, w] if inside else 0.0
            for w in range(_BLOCK):
                centre[w] = total[w] / keep
        for w in range(width):
            out[at + w] = centre[w]
    clean = 0.0
    for w in range(_BLOCK):
        clean += doubt[w]
    return clean == 0
