"""Which workers this process plays, and how their gradients reach the server."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byzshield_exp.assignments import Assignment
from byzshield_exp.clusters.group import Group
from byzshield_exp.clusters.wire import Statement
from byzshield_exp.rows.digests import row_digest
from byzshield_exp.rows.finite import is_finite

Replica = Tensor | bytes | None


@dataclass(eq=False)
class Inbox:
    """What came for a step.

    Attributes:
        replicas: for each of f files its r replicas, in the order of ``workers_of_file``: a row
            ``[d]``, or its digest and a byte that says whether it is finite; None where none came.
        finite: ``[f, r]``, what digests say of their rows; None with rows.
        losses: ``[f, r]``, the loss reported with each replica, NaN where none was.
        statements: of the ranks that sent all they owed.
        absent: workers that did not.
        rejected: messages that were not what they should be.
        bytes_in: bytes that the server received since the step began.
        bytes_out: bytes that it sent.
    """

    replicas: list[list[Replica]]
    finite: Bool[Tensor, "f r"] | None
    losses: Float[Tensor, "f r"]
    statements: dict[int, Statement] = field(default_factory=dict)
    absent: tuple[int, ...] = ()
    rejected: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def rows(self) -> list[list[Tensor | None]]:
        """The replicas that are rows."""
        return [
            [replica if isinstance(replica, Tensor) else None for replica in of_file]
            for of_file in self.replicas
        ]

    def forget(self, workers: Collection[int], workers_of_file: Int[Tensor, "f r"]) -> None:
        """Leave out the replicas of some workers."""
        for file, holders in enumerate(workers_of_file.tolist()):
            for place, worker in enumerate(holders):
                if worker in workers:
                    self.replicas[file][place] = None

    @classmethod
    def empty(cls, assignment: Assignment, reads_digests: bool) -> "Inbox":
        """An inbox in which nothing is yet."""
        shape = assignment.num_files, assignment.replication
        return cls(
            [[None] * shape[1] for _ in range(shape[0])],
            torch.zeros(shape, dtype=torch.bool) if reads_digests else None,
            torch.full(shape, torch.nan),
        )


class Cluster:
    """The communication side of a run; this class is the simulation, in which nothing travels.

    Rank 0 is the parameter server. With more ranks it plays no worker; the K workers are spread
    over the other ranks in consecutive blocks whose sizes differ by at most one.

    Attributes:
        assignment: who computes what.
        rank: of this process.
        world_size: 1 is the simulation.
        reads_digests: whether the vote is on digests of rows.
        events: lines for a person; whoever tells them clears the list.
        caught: workers and files of this step whose row was not what the digest said.
    """

    def __init__(self, group: Group, assignment: Assignment, reads_digests: bool) -> None:
        self.assignment = assignment
        self.rank, self.world_size = group.rank, group.world_size
        self.reads_digests = reads_digests
        self.events: list[str] = []
        self.caught: set[tuple[int, int]] = set()
        self._place_of = {
            (worker, file): place
            for file, workers in enumerate(assignment.workers_of_file.tolist())
            for place, worker in enumerate(workers)
        }
        self._inbox = Inbox.empty(assignment, reads_digests)
        self._rows: dict[tuple[int, int], Tensor] = {}  # of this process, by worker and file
        self._said: dict[tuple[int, int], tuple[bytes, bool]] = {}  # by file and memory
        self._table: Tensor | None = None

    @property
    def is_server(self) -> bool:
        """Whether this process receives."""
        return self.rank == 0

    @property
    def workers(self) -> range:
        """The workers that this process plays."""
        return self.workers_of(self.rank)

    def workers_of(self, rank: int) -> range:
        """The workers that a rank plays."""
        num_workers, ranks = self.assignment.num_workers, self.world_size - 1
        if ranks == 0:
            return range(num_workers)
        if rank == 0:
            return range(0)
        return range((rank - 1) * num_workers // ranks, rank * num_workers // ranks)

    def bearable(self, needed: int) -> int:
        """How many ranks with workers may be lost, whichever, so that each file has replicas left.

        Args:
            needed: replicas of each file, ``1..r``.
        """
        ranks = self.world_size - 1
        rank_of = {worker: rank for rank in range(ranks + 1) for worker in self.workers_of(rank)}
        fewest = ranks
        for workers in self.assignment.workers_of_file.tolist():
            counts = Counter(rank_of[worker] for worker in workers).most_common()
            left = len(workers) - np.cumsum([count for _, count in counts])
            fewest = min(fewest, int((left >= needed).sum()))
        return fewest

    def keep_rows_in(self, table: Float[Tensor, "f d"]) -> None:
        """In the simulation: let winners stay in the table that the true rows are computed in."""
        self._table = table

    def compare_digests(self, digest: bytes | None, entries: Mapping[str, str]) -> None:
        """Check that all ranks with workers computed the same bytes for the same file.

        Args:
            digest: of file 0's gradient; None on the server, which computes none.
            entries: what this process says of its host and data.

        Raises:
            RunError: on the server, naming the ranks that differ from the most common digest, or
                in their data from the server, and what they say of themselves.
        """

    def share(self, content: Tensor) -> None:
        """Overwrite a tensor on all ranks with the server's, which all have the size of."""

    def begin_step(self, params: Float[Tensor, " d"], step: int | None) -> int | None:
        """Publish the step number and the parameters; every rank returns the server's step.

        Args:
            params: read on the server, overwritten on the other ranks.
            step: the server's next step, None to end the run; ignored on the other ranks.
        """
        self._inbox = Inbox.empty(self.assignment, self.reads_digests)
        self._rows.clear()
        self._said.clear()
        return step

    def put(self, step: int, worker: int, file: int, row: Float[Tensor, " d"], loss: float) -> None:
        """Send a replica. Its memory must stay as it is until the next step."""
        place = self._place_of[worker, file]
        self._rows[worker, file] = row
        self._inbox.losses[file, place] = loss
        if self._inbox.finite is None:
            self._inbox.replicas[file][place] = row
        else:
            digest, finite = self._digest(row, step, file)
            self._inbox.replicas[file][place] = digest + bytes([finite])
            self._inbox.finite[file, place] = finite

    def finish(self, step: int, statement: Statement) -> None:
        """Say that all replicas of this process were sent."""
        self._inbox.statements[self.rank] = statement

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that this process received and sent since the step began."""
        return 0, 0

    def gather(self, step: int) -> Inbox | None:
        """On the server, all that came for a step; None on the other ranks."""
        return self._inbox

    def deliver(
        self, winners: Mapping[int, Sequence[int]]
    ) -> tuple[list[int], Float[Tensor, "n d"]]:
        """On the server, the winning rows; what came besides may be overwritten.

        Args:
            winners: by file, ascending, the places of the replicas of its winning class.

        Returns:
            The files and their rows; a file is missing if nobody of its class sends the row.

        Raises:
            ValueError: if there is no table of rows to move them in.
        """
        if self._table is None:
            raise ValueError("there is no table of rows")
        table, workers = self._table, self.assignment.workers_of_file.tolist()
        rows = {file: self._rows[workers[file][at[0]], file] for file, at in winners.items()}
        mine = table.untyped_storage().data_ptr()
        moved = {
            file: row.clone() if row.untyped_storage().data_ptr() == mine else row
            for file, row in rows.items()
            if row.data_ptr() != table[file].data_ptr()
        }
        for file, row in moved.items():
            table[file].copy_(row)
        return list(winners), first_rows(table, list(winners))

    def end(self) -> None:
        """On the server: let the other ranks end as well; at the end, or after a failure."""

    def _digest(self, row: Tensor, step: int, file: int) -> tuple[bytes, bool]:
        """A row's digest and whether it is finite; several workers send the same memory."""
        key = file, row.data_ptr()
        if key not in self._said:
            finite = is_finite(row)
            self._said[key] = row_digest(row, step, file, finite), finite
        return self._said[key]


def first_rows(table: Float[Tensor, "f d"], files: Sequence[int]) -> Float[Tensor, "n d"]:
    """The rows of some files, ascending, moved to the beginning of their table."""
    for place, file in enumerate(files):
        if place != file:
            table[place].copy_(table[file])
    return table[: len(files)]
