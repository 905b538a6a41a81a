"""Compiled parts of the exact search.

Files are bits of 64-bit words. ``level[j]`` marks the files with more than ``j`` chosen holders,
``j = 0..t-1``; a file in ``level[t - 1]`` is won. Adding a worker costs ``t`` word operations.
numba infers the types of these functions, so mypy does not check them.
"""

from typing import no_type_check

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

_compiled = njit(nogil=True, cache=True)


@intrinsic
@no_type_check
def _popcount(context, number):
    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@_compiled
@no_type_check
def add_worker(level, child, mask):
    """Write to ``child`` the counters ``level`` after one more holder of the files of ``mask``."""
    threshold, words = level.shape
    for w in range(words):
        m = mask[w]
        for j in range(threshold - 1, 0, -1):
            child[j, w] = level[j, w] | (level[j - 1, w] & m)
        child[0, w] = level[0, w] | m


@_compiled
@no_type_check
def count_won(level):
    """Files won."""
    won = 0
    for w in range(level.shape[1]):
        won += np.int64(_popcount(level[level.shape[0] - 1, w]))
    return won


@_compiled
@no_type_check
def count_with(level, mask):
    """Files won with one more worker."""
    top = level.shape[0] - 1
    won = 0
    for w in range(level.shape[1]):
        ready = mask[w]
        if top > 0:
            ready &= level[top - 1, w]
        won += np.int64(_popcount(level[top, w] | ready))
    return won


@_compiled
@no_type_check
def largest(histogram, count):
    """The sum of the ``count`` largest numbers of a histogram."""
    total = 0
    degree = len(histogram) - 1
    while count > 0 and degree > 0:
        take = min(count, histogram[degree])
        total += take * degree
        count -= take
        degree -= 1
    return total


@_compiled
@no_type_check
def upper_bound(files, after, level, left, last, shared, tops, useful, first):
    """Most files won by any completion with ``left`` workers numbered above ``last``.

    A file that lacks d holders, with at least d candidates among its holders, costs d of the
    replicas that the best ``left`` candidates hold of such files. It also costs C(d, 2) of the
    pairs of new workers, two of which share at most ``shared`` files. Files that lack one holder
    have a budget of their own too. Taking cheap files first is optimal for this relaxation.

    ``tops`` [3, degrees], ``useful`` and ``first`` [words] are scratch space.
    """
    threshold, words = level.shape
    num_workers = files.shape[0]
    most = min(left, threshold)
    tops[:] = 0
    counts1 = 0
    done = 0
    for w in range(words):
        done += np.int64(_popcount(level[threshold - 1, w]))
        u = np.uint64(0)
        for d in range(1, most + 1):
            have = threshold - d
            mask = ~level[have, w] & after[d - 1, last + 1, w]
            if have > 0:
                mask &= level[have - 1, w]
            if d == 1:
                first[w] = mask
                counts1 += np.int64(_popcount(mask))
            else:
                tops[2, d] += np.int64(_popcount(mask))
            u |= mask
        useful[w] = u
    for u in range(last + 1, num_workers):
        a = 0
        b = 0
        for w in range(words):
            a += np.int64(_popcount(files[u, w] & useful[w]))
            b += np.int64(_popcount(files[u, w] & first[w]))
        tops[0, a] += 1
        tops[1, b] += 1
    budget = largest(tops[0], left)
    ones = largest(tops[1], left)
    gain = min(counts1, min(ones, budget))
    budget -= gain
    pairs = shared * left * (left - 1) // 2
    for d in range(2, most + 1):
        cost = d * (d - 1) // 2
        take = min(tops[2, d], min(budget // d, pairs // cost))
        gain += take
        budget -= take * d
        pairs -= take * cost
    return done + gain


@_compiled
@no_type_check
def scratch(files, threshold):
    """Scratch space for :func:`upper_bound`."""
    degree = threshold
    for u in range(files.shape[0]):
        mine = 0
        for w in range(files.shape[1]):
            mine += np.int64(_popcount(files[u, w]))
        degree = max(degree, mine)
    words = files.shape[1]
    return (
        np.zeros((3, degree + 1), np.int64),
        np.zeros(words, np.uint64),
        np.zeros(words, np.uint64),
    )


@_compiled
@no_type_check
def prefix_bound(files, after, prefix, q, shared):
    """Most files won by any set of ``q`` workers that begins with ``prefix``."""
    threshold, words = after.shape[0], files.shape[1]
    levels = np.zeros((len(prefix) + 1, threshold, words), np.uint64)
    for i in range(len(prefix)):
        add_worker(levels[i], levels[i + 1], files[prefix[i]])
    tops, useful, first = scratch(files, threshold)
    return upper_bound(
        files, after, levels[len(prefix)], q - len(prefix), prefix[-1], shared, tops, useful, first
    )


@_compiled
@no_type_check
def search(files, after, prefix, q, need, shared, stop, best):
    """Search depth first below a prefix, in lexicographic order, for a set that wins ``need``.

    After each such set it looks for one that wins more. Writes the last set to ``best`` and
    returns (its count or -1, nodes, whether it came to the end before ``stop`` was set).
    """
    num_workers, words = files.shape
    threshold = after.shape[0]
    levels = np.zeros((q + 1, threshold, words), np.uint64)
    tops, useful, first = scratch(files, threshold)
    chosen = np.zeros(q + 1, np.int64)
    start = len(prefix)
    for i in range(start):
        chosen[i] = prefix[i]
        add_worker(levels[i], levels[i + 1], files[prefix[i]])
    found = -1
    nodes = 1
    if stop[0] != 0:
        return found, nodes, False
    if start == q:
        count = count_won(levels[q])
        if count >= need:
            found = count
            best[:] = chosen[:q]
        return found, nodes, True
    last = chosen[start - 1]
    possible = upper_bound(
        files, after, levels[start], q - start, last, shared, tops, useful, first
    )
    if possible < need:
        return found, nodes, True
    depth = start
    chosen[depth] = last
    while depth >= start:
        left = q - depth  # still to choose, this one included
        chosen[depth] += 1
        u = chosen[depth]
        if u > num_workers - left:
            depth -= 1
            continue
        nodes += 1
        if (nodes & 1023) == 0 and stop[0] != 0:
            return found, nodes, False
        if left == 1:
            for v in range(u, num_workers):
                count = count_with(levels[depth], files[v])
                if count >= need:
                    found = count
                    need = count + 1
                    chosen[depth] = v
                    best[:] = chosen[:q]
            depth -= 1
            continue
        child = levels[depth + 1]
        add_worker(levels[depth], child, files[u])
        possible = upper_bound(files, after, child, left - 1, u, shared, tops, useful, first)
        if possible >= need:
            depth += 1
            chosen[depth] = u
    return found, nodes, True


@_compiled
@no_type_check
def local_search(files, threshold, q, restarts, seed):
    """Find a good set: from random starts, swap one worker for the best other while it helps."""
    np.random.seed(seed)  # numba's own generator, not numpy's
    num_workers, words = files.shape
    levels = np.zeros((2, threshold, words), np.uint64)
    best_count = -1
    best = np.arange(q)
    for _ in range(restarts):
        order = np.random.permutation(num_workers)  # the first q are the set
        current = -1
        improved = True
        while improved:
            improved = False
            for i in range(q):
                levels[:] = 0
                side = 0
                for k in range(q):
                    if k != i:
                        add_worker(levels[side], levels[1 - side], files[order[k]])
                        side = 1 - side
                top = count_with(levels[side], files[order[i]])
                place = i
                for j in range(q, num_workers):
                    count = count_with(levels[side], files[order[j]])
                    if count > top:
                        top = count
                        place = j
                order[i], order[place] = order[place], order[i]
                if top > current:
                    improved = True
                    current = top
        if current > best_count:
            best_count = current
            best = np.sort(order[:q])
    return best


@_compiled
@no_type_check
def prefixes(num_workers, size, q, automorphisms):
    """All sorted prefixes of a size that no automorphism makes lexicographically smaller."""
    out = []
    chosen = np.zeros(size, np.int64)
    image = np.zeros(size, np.int64)
    depth = 0
    chosen[0] = -1
    while depth >= 0:
        chosen[depth] += 1
        if chosen[depth] > num_workers - (q - depth):
            depth -= 1
            continue
        smallest = True
        for g in range(automorphisms.shape[0]):
            for i in range(depth + 1):
                value = automorphisms[g, chosen[i]]
                j = i
                while j > 0 and image[j - 1] > value:
                    image[j] = image[j - 1]
                    j -= 1
                image[j] = value
            less = False
            for i in range(depth + 1):
                if image[i] != chosen[i]:
                    less = image[i] < chosen[i]
                    break
            if less:
                smallest = False
                break
        if not smallest:
            continue
        if depth == size - 1:
            out.append(chosen.copy())
        else:
            depth += 1
            chosen[depth] = chosen[depth - 1]
    return out
