"""From labels to winners."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from byzshield_exp.rows.finite import are_finite
from byzshield_exp.rows.finite import is_finite as row_is_finite
from byzshield_exp.rows.parallel import each

ABSENT = -1  # the label of a replica that did not come
NO_WINNER = -1
T = TypeVar("T")
_WORTH = 1 << 25  # bytes; starting threads takes milliseconds on a busy machine


def is_finite(
    replicas: Sequence[Sequence[Tensor | None]], labels: Int[Tensor, "f r"]
) -> Bool[Tensor, "f r"]:
    """Whether a replica came and has neither NaN nor Inf; one replica per class is read."""
    marks_of = labels.tolist()
    chosen = {
        (file, mark): row.detach()
        for file, marks in enumerate(marks_of)
        for mark in _classes(marks)
        if (row := replicas[file][_representative(marks, mark)]) is not None
    }
    rows = list(chosen.values())
    if device_of(replicas).type == "cpu":
        found = for_each(lambda at: row_is_finite(rows[at]), len(rows), replicas)
    else:
        found = are_finite(rows)
    known = dict(zip(chosen, found, strict=True))
    flags = [
        [known.get((file, mark), False) for mark in marks] for file, marks in enumerate(marks_of)
    ]
    return torch.tensor(flags, dtype=torch.bool).view(labels.shape)


def winners(
    labels: Int[Tensor, "f r"],
    finite: Bool[Tensor, "f r"],
    needed: int | Int[Tensor, " f"],
) -> Int[Tensor, " f"]:
    """The winning replica of each file, or -1.

    A class wins with ``needed`` replicas; a class with a NaN or Inf wins only if no replica of
    its file is finite.

    Args:
        labels: equal label, equal replica.
        finite: whether a replica has neither NaN nor Inf.
        needed: ``floor(r / 2) + 1``: a strict majority of all r; or a number for each file.

    Returns:
        ``[f]``, the place in 0..r-1 of the replica that stands for the winning class, or -1.
    """
    places = torch.full((len(labels),), NO_WINNER)
    limits = torch.as_tensor(needed).expand(len(labels)).tolist()
    for file, marks in enumerate(labels.tolist()):
        mark, count = _largest(marks)
        place = _representative(marks, mark) if count else 0
        usable = bool(finite[file, place]) or not bool(finite[file].any())
        if count >= max(1, limits[file]) and usable:
            places[file] = place
    return places


def count_disagreements(labels: Int[Tensor, "f r"]) -> int:
    """Replicas that came and are outside their file's largest class, over all files."""
    return sum(len(marks) - marks.count(ABSENT) - _largest(marks)[1] for marks in labels.tolist())


def as_labels(marks_of: Sequence[Sequence[int]]) -> Int[Tensor, "f r"]:
    """``[f, r]`` of the labels of every file."""
    width = len(marks_of[0]) if marks_of else 0
    return torch.tensor(marks_of, dtype=torch.int64).view(len(marks_of), width)


def for_each(
    work: Callable[[int], T], count: int, replicas: Sequence[Sequence[Tensor | None]]
) -> list[T]:
    """Call ``work`` with 0 to ``count - 1``, on threads if the rows are large enough."""
    sizes = {row.data_ptr(): row.nbytes for rows in replicas for row in rows if row is not None}
    if sum(sizes.values()) < _WORTH:
        return [work(item) for item in range(count)]
    return each(work, range(count), device_of(replicas))


def device_of(replicas: Sequence[Sequence[Tensor | None]]) -> torch.device:
    """The device of the rows."""
    return next(
        (row.device for rows in replicas for row in rows if row is not None), torch.device("cpu")
    )


def _classes(marks: list[int]) -> list[int]:
    return [mark for mark in dict.fromkeys(marks) if mark != ABSENT]


def _largest(marks: list[int]) -> tuple[int, int]:
    """The label and size of the largest class, of equal ones the first."""
    counted = [(mark, marks.count(mark)) for mark in _classes(marks)]
    return max(counted, key=lambda pair: pair[1], default=(ABSENT, 0))


def _representative(marks: list[int], mark: int) -> int:
    """The place of the replica that stands for a class; the first if the label is not a place."""
    is_place = 0 <= mark < len(marks) and marks[mark] == mark
    return mark if is_place else marks.index(mark)
