"""A worker process's end of a run."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.assignments import Assignment
from byzshield_exp.clusters.cluster import Cluster
from byzshield_exp.clusters.group import Group
from byzshield_exp.clusters.introduction import pack_introduction
from byzshield_exp.clusters.line import Line, Parts
from byzshield_exp.clusters.wire import (
    DTYPES,
    Header,
    Kind,
    Statement,
    pack_statement,
)
from byzshield_exp.errors import LostServer
from byzshield_exp.rows.digests import DIGEST_BYTES, bytes_of


class WorkerCluster(Cluster):
    """Replicas leave while the next ones are computed; with digests, rows only when fetched."""

    def __init__(
        self, group: Group, assignment: Assignment, reads_digests: bool, line: Line
    ) -> None:
        super().__init__(group, assignment, reads_digests)
        self._line, self._run = line, group.run
        self._at_start = 0, 0
        self._copies: dict[tuple[int, int], Tensor] = {}  # of rows on a GPU, by file and memory
        line.serve(self._answer)

    def compare_digests(self, digest: bytes | None, entries: Mapping[str, str]) -> None:
        """Send the digest and the entries to the server."""
        said = (digest or bytes(DIGEST_BYTES)) + pack_introduction(entries)
        self._send(Header(Kind.CHECK, self._run, self.rank), said)

    def share(self, content: Tensor) -> None:
        """Wait for the server's.

        Raises:
            LostServer: if there is none any more.
        """
        header, payload = self._next()
        if header.kind is not Kind.SHARE:
            raise LostServer("the run ended before its first step")
        content.copy_(torch.frombuffer(payload, dtype=content.dtype).view_as(content))

    def begin_step(self, params: Float[Tensor, " d"], step: int | None) -> int | None:
        """Wait for the next order."""
        header, content = self._next()
        if header.kind is not Kind.ORDER:
            return None
        super().begin_step(params, step)
        self._copies.clear()
        params.copy_(torch.frombuffer(content, dtype=params.dtype))
        self._at_start = self._line.bytes_in - header.length, self._line.bytes_out
        return header.step

    def _next(self) -> tuple[Header, memoryview]:
        """The next message of this run."""
        while True:
            header, content = self._line.next()
            if header.run == self._run:
                return header, content

    def put(self, step: int, worker: int, file: int, row: Float[Tensor, " d"], loss: float) -> None:
        """Send a row or its digest; the row waits for being fetched."""
        here = self._in_host_memory(file, row)
        head = Header(
            Kind.ROW, self._run, self.rank, worker, file, step, dtype=DTYPES[here.dtype], loss=loss
        )
        if self.reads_digests:
            self._rows[worker, file] = here
            digest, finite = self._digest(here, step, file)
            fields = {"kind": Kind.DIGEST, "finite": finite}
            self._send(Header(**{**vars(head), **fields}), digest)
        else:
            self._send(head, bytes_of(here).data)

    def _in_host_memory(self, file: int, row: Tensor) -> Tensor:
        """The row, copied from a GPU once, whoever sends it."""
        if row.device.type == "cpu":
            return row
        key = file, row.data_ptr()
        if key not in self._copies:
            self._copies[key] = row.cpu()
        return self._copies[key]

    def finish(self, step: int, statement: Statement) -> None:
        """Say that all was sent, and how long it took."""
        self._send(Header(Kind.DONE, self._run, self.rank, step=step), pack_statement(statement))

    def gather(self, step: int) -> None:
        """Nothing comes here."""

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent since the order of this step came, without what is queued."""
        return self._line.bytes_in - self._at_start[0], self._line.bytes_out - self._at_start[1]

    def _send(self, header: Header, payload: bytes | memoryview) -> None:
        self._line.send(header.carrying(len(payload)).pack(), payload)

    def _answer(self, asked: Header) -> Parts:
        """The row that the server fetches; nothing for one that there is not."""
        row = self._rows.get((asked.worker, asked.file))
        if row is None:
            return ()
        content = bytes_of(row).data
        head = Header(
            Kind.ROW, self._run, self.rank, asked.worker, asked.file, asked.step,
            len(content), DTYPES[row.dtype],
        )  # fmt: skip
        return head.pack(), content
