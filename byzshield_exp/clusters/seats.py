"""Which process plays which workers, and how many processes may be lost."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from byzshield_exp.assignments import Assignment


@dataclass(frozen=True, eq=False)
class Seats:
    """The places of the workers; nothing here communicates.

    Workers are spread in consecutive blocks whose sizes differ by at most one: over all ranks but
    rank 0, the server; with ``server_plays``, or if there is no other rank, over all.

    Attributes:
        assignment: who computes what.
        world_size: processes of the run; 1: one process plays everybody.
        server_plays: whether rank 0 plays workers beside other ranks.
    """

    assignment: Assignment
    world_size: int = 1
    server_plays: bool = False

    @property
    def players(self) -> range:
        """The ranks that play workers."""
        return range(0 if self.server_plays or self.world_size == 1 else 1, self.world_size)

    def workers_of(self, rank: int) -> range:
        """The workers that a rank plays."""
        if rank not in self.players:
            return range(0)
        num_workers, ranks = self.assignment.num_workers, len(self.players)
        place = rank - self.players.start
        return range(place * num_workers // ranks, (place + 1) * num_workers // ranks)

    @cached_property
    def rank_of(self) -> dict[int, int]:
        """The rank that plays a worker."""
        return {worker: rank for rank in self.players for worker in self.workers_of(rank)}

    def rank_of_id(self, one: int) -> int:
        """The rank that plays a worker, or that an observer is: ``-1 - rank``, a process itself."""
        return self.rank_of[one] if one >= 0 else -1 - one

    @cached_property
    def place_of(self) -> dict[tuple[int, int], int]:
        """By worker and file, which of the file's r replicas the worker has."""
        return {
            (worker, file): place
            for file, workers in enumerate(self.assignment.workers_of_file.tolist())
            for place, worker in enumerate(workers)
        }

    def name(self, rank: int) -> str:
        """Name a rank and its workers, for a message."""
        workers = self.workers_of(rank)
        if len(workers) == 1:
            return f"rank {rank} (worker {workers.start})"
        return f"rank {rank} (workers {workers.start} to {workers.stop - 1})"

    def holders(self, workers: Collection[int]) -> dict[int, list[int]]:
        """Map each file that some workers hold to those that hold it."""
        holders: dict[int, list[int]] = {}
        for worker in workers:
            for file in self.assignment.files_of_worker[worker].tolist():
                holders.setdefault(file, []).append(worker)
        return holders

    def order_of(self, rank: int, lying: Collection[int]) -> list[tuple[int, int]]:
        """List (worker, file) in the order in which a rank sends them: the truth first, by file."""
        workers = self.workers_of(rank)
        honest = self.holders([worker for worker in workers if worker not in lying])
        lies = self.holders([worker for worker in workers if worker in lying])
        truth = [(worker, file) for file in sorted(honest) for worker in honest[file]]
        return truth + [(worker, file) for file in lies for worker in lies[file]]

    def bearable(self, needed: int) -> int:
        """Count how many ranks may be lost, whichever, so that each file keeps enough replicas.

        Args:
            needed: replicas of each file, ``1..r``.
        """
        fewest = len(self.players)
        for workers in self.assignment.workers_of_file.tolist():
            counts = Counter(self.rank_of[worker] for worker in workers).most_common()
            left = len(workers) - np.cumsum([count for _, count in counts])
            fewest = min(fewest, int((left >= needed).sum()))
        return fewest
