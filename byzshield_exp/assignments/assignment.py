"""The assignment of files to workers: a biregular bipartite graph."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Assignment:
    """A biregular bipartite graph between ``K`` workers and ``f`` files, ``K * l = f * r``.

    Attributes:
        files_of_worker: ``[K, l]`` int64. Row ``u`` lists the files that worker ``u`` computes.
        automorphisms: returns permutations of the workers ``[g, K]`` that map files onto files;
            None: none are known. They shorten the search for the worst case.

    Raises:
        ValueError: if a worker holds a file twice, a file is held by nobody, or the files have
            unequal numbers of holders.
    """

    files_of_worker: Int[Tensor, "K l"]
    automorphisms: Callable[[], np.ndarray] | None = None

    def __post_init__(self) -> None:
        copies = torch.bincount(self.files_of_worker.flatten())
        if self.files_of_worker.numel() == 0 or int(copies.min()) != int(copies.max()):
            raise ValueError(f"files have unequal numbers of holders: {copies.tolist()}")
        ordered = self.files_of_worker.sort(dim=1).values
        if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
            raise ValueError("a worker holds one file twice")

    @property
    def num_workers(self) -> int:
        """``K``."""
        return self.files_of_worker.shape[0]

    @property
    def load(self) -> int:
        """Files per worker, ``l``."""
        return self.files_of_worker.shape[1]

    @cached_property
    def num_files(self) -> int:
        """``f``."""
        return int(self.files_of_worker.max()) + 1

    @property
    def replication(self) -> int:
        """Workers per file, ``r``."""
        return self.num_workers * self.load // self.num_files

    @property
    def majority(self) -> int:
        """Equal replicas that a file needs for a winner: ``floor(r / 2) + 1``."""
        return self.replication // 2 + 1

    @cached_property
    def slots_of_file(self) -> Int[Tensor, "f r"]:
        """Where the replicas of each file sit in the flattened inbox ``[K * l]``."""
        order = self.files_of_worker.flatten().argsort(stable=True)
        return order.view(self.num_files, self.replication)

    @cached_property
    def workers_of_file(self) -> Int[Tensor, "f r"]:
        """The holders of each file, ascending."""
        return self.slots_of_file // self.load

    @cached_property
    def incidence(self) -> Bool[Tensor, "K f"]:
        """Whether a worker holds a file."""
        table = torch.zeros(self.num_workers, self.num_files, dtype=torch.bool)
        return table.scatter_(1, self.files_of_worker, True)

    @cached_property
    def groups(self) -> list[list[int]]:
        """The groups of workers that hold exactly the same files; groups share no file.

        Raises:
            ValueError: if the assignment is not made of such groups.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for worker, files in enumerate(self.files_of_worker.sort(dim=1).values.tolist()):
            groups.setdefault(tuple(files), []).append(worker)
        if any(len(members) != self.replication for members in groups.values()):
            raise ValueError("this placement has no groups of workers with the same files")
        return list(groups.values())
