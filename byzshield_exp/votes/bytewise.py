"""Equality of bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from byzshield_exp.rows.digests import same_bytes
from byzshield_exp.rows.gpu import has_kernels
from byzshield_exp.votes.counting import ABSENT, as_labels, device_of, for_each
from byzshield_exp.votes.vote import vote_traits

_CHUNK = (
    1 << 21
)  # bytes; the first row's chunk stays in the cache while others are compared with it
_TASKS = 4  # per thread, at least, so that no thread waits long for the last one


@vote_traits(is_exact=True)
def majority(replicas: Sequence[Sequence[Tensor | None]]) -> Int[Tensor, "f r"]:
    """Label replicas by their bytes: equal labels within a file mean equal bytes.

    Bytes, not numbers: -0.0 is not 0.0, and a NaN equals itself. The whole gradient is compared,
    not layer by layer. Rows of different types or sizes are never equal.

    Args:
        replicas: for each of f files its r rows ``[d]``; None: it did not come.

    Returns:
        ``[f, r]``; a replica's label is the first place in its file with the same bytes.

    Source: exact vote of DRACO and ByzShield, here with the verification that their code omits.
    """
    if has_kernels(device_of(replicas)):
        return as_labels(_labels_on_gpu(replicas))
    parts = -(-_TASKS * torch.get_num_threads() // max(1, len(replicas)))

    def look(task: int) -> list[list[int]]:
        return _equal_in_part(replicas[task // parts], task % parts, parts)

    found = for_each(look, len(replicas) * parts, replicas)
    return as_labels(
        [
            _labels(len(rows), found[file * parts : (file + 1) * parts])
            for file, rows in enumerate(replicas)
        ]
    )


def same_memory(rows: Sequence[Tensor | None]) -> list[list[int]]:
    """Group the places whose rows are the same memory: computed once, read by several workers."""
    groups: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        if row is not None:
            where = row.device, row.data_ptr(), row.dtype, row.shape, row.stride()
            groups.setdefault(where, []).append(place)
    return list(groups.values())


def _labels_on_gpu(replicas: Sequence[Sequence[Tensor | None]]) -> list[list[int]]:
    """Compare the rows of all files with the first of theirs, then those that differ, and so on.

    Each round is one launch and waits once. In one process a file has at most two rows in memory,
    the true one and a lie; where nobody lies there is no round.
    """
    labels = [[ABSENT] * len(rows) for rows in replicas]
    todo: dict[object, list[tuple[int, list[int]]]] = {}
    for file, rows in enumerate(replicas):
        shared = {places[0]: places for places in same_memory(rows)}
        for head, places in shared.items():
            for place in places:
                labels[file][place] = head
        for kind, heads in _by_kind(rows, shared).items():
            if len(heads) > 1:
                todo.setdefault(kind, []).append((file, heads))
    for groups in todo.values():
        while groups:
            split = _split_on_gpu(replicas, groups)
            for file, equal, _ in split:
                labels[file] = [equal[0] if label in equal else label for label in labels[file]]
            groups = [(file, left) for file, _, left in split if len(left) > 1]
    return labels


def _split_on_gpu(
    replicas: Sequence[Sequence[Tensor | None]], groups: list[tuple[int, list[int]]]
) -> list[tuple[int, list[int], list[int]]]:
    """For each group its file, what equals its first place, that included, and what is left."""
    # here, as there is no Triton without a GPU
    from byzshield_exp.rows.gpu_equality import differ_from_first

    rows = [
        [row for at in places if (row := replicas[file][at]) is not None] for file, places in groups
    ]
    split = []
    for (file, places), differ in zip(groups, differ_from_first(rows), strict=True):
        equal = [place for place, other in zip(places, differ, strict=True) if not other]
        split.append((file, equal, [place for place in places if place not in equal]))
    return split


def _by_kind(rows: Sequence[Tensor | None], places: Iterable[int]) -> dict[object, list[int]]:
    """Group places whose rows may be equal: of one device, type and size."""
    kinds: dict[object, list[int]] = {}
    for place in places:
        if (row := rows[place]) is not None:
            kinds.setdefault((row.device, row.dtype, row.shape), []).append(place)
    return kinds


def _labels(count: int, parts: list[list[list[int]]]) -> list[int]:
    """Label rows: two are equal if they are in one group in every part."""
    keys: list[list[int]] = [[] for _ in range(count)]
    for groups in parts:
        for group in groups:
            for place in group:
                keys[place].append(group[0])
    return [keys.index(key) if key else ABSENT for key in keys]


def _equal_in_part(rows: Sequence[Tensor | None], part: int, parts: int) -> list[list[int]]:
    """Group the places whose rows have equal bytes in one of ``parts`` parts of the row."""
    shared = {places[0]: places for places in same_memory(rows)}
    heads = {place: row for place, row in enumerate(rows) if place in shared and row is not None}
    groups = list(_by_kind(rows, shared).values())
    for start, stop in _chunks(list(heads.values()), part, parts):
        if all(len(group) == 1 for group in groups):  # rows known to differ are not read again
            break
        groups = [finer for group in groups for finer in _split(heads, group, start, stop)]
    return [[place for head in group for place in shared[head]] for group in groups]


def _chunks(rows: Sequence[Tensor], part: int, parts: int) -> Iterator[tuple[int, int]]:
    """Yield where the chunks of a part of the longest row begin and end; on a GPU one chunk."""
    size = max((row.numel() for row in rows), default=0)
    low, high = size * part // parts, size * (part + 1) // parts
    is_on_cpu = all(row.device.type == "cpu" for row in rows)
    step = max(1, _CHUNK // rows[0].element_size() if is_on_cpu and rows else high - low)
    for start in range(low, high, step):
        yield start, min(start + step, high)


def _split(
    rows: Mapping[int, Tensor], group: list[int], start: int, stop: int
) -> Iterator[list[int]]:
    """Split a group by the bytes of its rows' entries ``start`` to ``stop - 1``."""
    left = group
    while len(left) > 1:
        head, *others = left
        equal = {
            place for place in others if same_bytes(rows[head][start:stop], rows[place][start:stop])
        }
        yield [head, *(place for place in others if place in equal)]
        left = [place for place in others if place not in equal]
    if left:
        yield left
