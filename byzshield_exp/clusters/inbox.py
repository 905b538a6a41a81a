"""What arrives at the server in a step."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byzshield_exp.assignments import Assignment

Replica = Tensor | bytes | None
PHASES = ("data", "compute", "attack", "send", "total")
_COUNTS = 3
STATEMENT_BYTES = 8 * (_COUNTS + 2 * len(PHASES))


@dataclass(frozen=True)
class Statement:
    """What a rank says at the end of its step.

    Attributes:
        seconds: wall clock per phase.
        cpu_seconds: of the process, per phase.
        files_computed: true gradients since the start of the run.
        bytes_out: sent in this step, without this message.
        bytes_in: received for this step.
    """

    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    files_computed: int
    bytes_out: int = 0
    bytes_in: int = 0

    def pack(self) -> bytes:
        """Return it as :data:`STATEMENT_BYTES` bytes."""
        counts = [self.files_computed, self.bytes_out, self.bytes_in]
        tables = self.seconds, self.cpu_seconds
        seconds = [table.get(phase, 0.0) for table in tables for phase in PHASES]
        return np.array(counts, dtype="<i8").tobytes() + np.array(seconds, dtype="<f8").tobytes()

    @classmethod
    def unpack(cls, content: bytes) -> "Statement":
        """Read what :meth:`pack` made; any bytes of the right number are one."""
        counts = np.frombuffer(content, dtype="<i8", count=_COUNTS).tolist()
        seconds = np.frombuffer(content, dtype="<f8", offset=8 * _COUNTS).reshape(2, -1).tolist()
        wall, cpu = (dict(zip(PHASES, table, strict=True)) for table in seconds)
        return cls(wall, cpu, *counts)


@dataclass(eq=False)
class Inbox:
    """What arrived for a step.

    Attributes:
        replicas: for each of f files its r replicas, in the order of ``workers_of_file``: a joined
            row ``[d + s]``, or its digest and a byte that says whether it is finite; None where
            none came.
        finite: ``[f, r]``, what digests say of their rows; None with rows.
        losses: ``[f, r]``, the loss reported with each replica, NaN where none was.
        statements: by rank, of those that sent all they owed.
        absent: workers that did not.
        rejected: messages that were not what they should be.
        introductions: by rank, what ranks said of themselves that were silent before.
    """

    replicas: list[list[Replica]]
    finite: Bool[Tensor, "f r"] | None
    losses: Float[Tensor, "f r"]
    statements: dict[int, Statement] = field(default_factory=dict)
    absent: tuple[int, ...] = ()
    rejected: int = 0
    introductions: dict[int, bytes] = field(default_factory=dict)

    @property
    def rows(self) -> list[list[Tensor | None]]:
        """The replicas that are rows."""
        return [
            [replica if isinstance(replica, Tensor) else None for replica in of_file]
            for of_file in self.replicas
        ]

    def put(self, file: int, place: int, replica: Replica, is_finite: bool, loss: float) -> None:
        """Store a replica; whether it is finite is part of a digest, so it is voted with it."""
        if self.finite is not None and isinstance(replica, bytes):
            replica += bytes([is_finite])  # so a class never mixes finite and non-finite rows
            self.finite[file, place] = is_finite
        self.replicas[file][place] = replica
        self.losses[file, place] = loss

    def forget(self, workers: Collection[int], workers_of_file: Int[Tensor, "f r"]) -> None:
        """Leave out the replicas of some workers."""
        for file, holders in enumerate(workers_of_file.tolist()):
            for place, worker in enumerate(holders):
                if worker in workers:
                    self.replicas[file][place] = None

    @classmethod
    def empty(cls, assignment: Assignment, reads_digests: bool) -> "Inbox":
        """Return an inbox with no replica."""
        shape = assignment.num_files, assignment.replication
        return cls(
            [[None] * shape[1] for _ in range(shape[0])],
            torch.zeros(shape, dtype=torch.bool) if reads_digests else None,
            torch.full(shape, torch.nan),
        )
