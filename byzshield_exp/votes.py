"""WHOM TO BELIEVE: votes label the replicas of a file; labels make winners."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NO_WINNER = -1
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def majority(replicas: Sequence[Sequence[Tensor]]) -> Int[Tensor, "f r"]:
    """Label replicas by their bytes: equal labels within a file mean equal bytes.

    Bytes, not numbers: -0.0 is not 0.0, and a NaN equals itself. The whole gradient is compared,
    not layer by layer.

    Args:
        replicas: for each of f files its r rows ``[d]``.

    Returns:
        ``[f, r]``; a replica's label is the first place in its file with the same bytes.

    Source: exact vote of DRACO and ByzShield, here with the verification that their code omits.
    """
    return torch.tensor([_labels_of_file(rows) for rows in replicas])


def is_finite(
    replicas: Sequence[Sequence[Tensor]], labels: Int[Tensor, "f r"]
) -> Bool[Tensor, "f r"]:
    """Whether a replica has neither NaN nor Inf; every class is read once."""
    flags = torch.ones(labels.shape, dtype=torch.bool)
    for file, (rows, marks) in enumerate(zip(replicas, labels.tolist(), strict=True)):
        known = {mark: _row_is_finite(rows[mark]) for mark in set(marks)}
        flags[file] = torch.tensor([known[mark] for mark in marks])
    return flags


def winners(
    labels: Int[Tensor, "f r"], finite: Bool[Tensor, "f r"], needed: int
) -> Int[Tensor, " f"]:
    """The winning replica of each file, or -1.

    A class wins with ``needed`` equal replicas (a strict majority of all r); a class with a NaN
    or Inf wins only if no replica of its file is finite.

    Args:
        labels: equal label, equal replica.
        finite: whether a replica has neither NaN nor Inf.
        needed: ``floor(r / 2) + 1``.

    Returns:
        ``[f]``, the place in 0..r-1 of the winning class's first member, or -1.
    """
    places = torch.full((len(labels),), NO_WINNER)
    for file, marks in enumerate(labels.tolist()):
        place = max(range(len(marks)), key=lambda at: marks.count(marks[at]))
        usable = bool(finite[file, place]) or not bool(finite[file].any())
        if marks.count(marks[place]) >= needed and usable:
            places[file] = place
    return places


def count_disagreements(labels: Int[Tensor, "f r"]) -> int:
    """Replicas outside their file's largest class, over all files."""
    return sum(len(marks) - max(marks.count(mark) for mark in marks) for marks in labels.tolist())


def _labels_of_file(rows: Sequence[Tensor]) -> list[int]:
    marks: list[int] = []
    for place, row in enumerate(rows):
        same = (mark for mark in dict.fromkeys(marks) if _same_bytes(rows[mark], row))
        marks.append(next(same, place))
    return marks


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    if a.data_ptr() == b.data_ptr():  # one row computed once and read by several workers
        return True
    words = _WORDS[a.element_size()]
    return torch.equal(a.view(words), b.view(words))


def _row_is_finite(row: Tensor) -> bool:
    low, high = torch.aminmax(row)  # NaN and Inf pass through; no temporary of size d
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))
