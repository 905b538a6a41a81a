"""Placements without structure: at random, and from a file."""

from pathlib import Path

import numpy as np
import torch

from byzshield_exp.assignments.assignment import Assignment
from byzshield_exp.errors import first_line

_SWAPS_PER_COPY = 20  # attempted swaps per replica; a few already mix well


def random(
    num_workers: int, replication: int, load: int | None = None, placement_seed: int = 0
) -> Assignment:
    """A random biregular placement with ``f = K l / r`` files.

    Files are dealt in turn. Then random pairs of workers swap two files, unless one would then
    hold a file twice.

    Args:
        num_workers: K.
        replication: r, at most K.
        load: l, files per worker; None means r (then f = K).
        placement_seed: another seed is another placement.

    Raises:
        ValueError: if ``1 <= r <= K`` does not hold, or ``K l`` is not a multiple of r with l <= f.

    Source: our own, to compare with; random biregular graphs are folklore.
    """
    files_each = replication if load is None else load
    if not 1 <= replication <= num_workers or files_each < 1 or placement_seed < 0:
        raise ValueError(
            f"random needs 1 <= r <= K, load >= 1 and placement_seed >= 0, got K={num_workers} "
            f"r={replication} load={files_each} placement_seed={placement_seed}"
        )
    if num_workers * files_each % replication:
        raise ValueError(
            f"random needs K*load to be a multiple of r, got K={num_workers} load={files_each} "
            f"r={replication}"
        )
    num_files = num_workers * files_each // replication
    table = np.arange(num_workers * files_each).reshape(num_workers, files_each) % num_files
    draw = np.random.default_rng(placement_seed)
    for _ in range(_SWAPS_PER_COPY * table.size):
        one, two = draw.integers(num_workers, size=2)
        at, there = draw.integers(files_each, size=2)
        mine, theirs = table[one, at], table[two, there]
        if mine not in table[two] and theirs not in table[one]:
            table[one, at], table[two, there] = theirs, mine
    return Assignment(torch.from_numpy(np.sort(table, axis=1)))


def custom(path: str) -> Assignment:
    """A placement from a file: a K x f matrix of zeros and ones, as .npy or .csv.

    Raises:
        ValueError: if the file cannot be read, is not a 0-1 matrix, a file is held by nobody, or
            rows or columns have unequal sums.

    Source: your own.
    """
    try:
        is_text = Path(path).suffix != ".npy"
        if not (Path(path).read_text().strip() if is_text else Path(path).stat().st_size):
            raise ValueError("it is empty")
        matrix = np.loadtxt(path, delimiter=",", ndmin=2) if is_text else np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"approach.path={path} cannot be read: {first_line(error)}") from error
    if matrix.ndim != 2 or not matrix.size or not np.isin(matrix, (0, 1)).all():
        raise ValueError(f"approach.path={path} must be a K x f matrix of zeros and ones")
    loads, copies = matrix.sum(axis=1).astype(int), matrix.sum(axis=0).astype(int)
    if copies.min(initial=0) == 0 and (copies == 0).any():
        raise ValueError(f"approach.path={path}: nobody holds file {int(copies.argmin())}")
    for name, sums in (("workers hold", loads), ("files have", copies)):
        if len(set(sums.tolist())) != 1:
            what = "files" if name == "workers hold" else "holders"
            raise ValueError(
                f"approach.path={path}: {name} unequal numbers of {what}, "
                f"{int(sums.min())} to {int(sums.max())}"
            )
    return Assignment(torch.from_numpy(np.nonzero(matrix)[1].reshape(len(matrix), -1)))
