"""A worker process's end of the sockets."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from byzshield_exp.clusters.inbox import Statement
from byzshield_exp.clusters.said import HostCopies, Said
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.line import Line, Parts
from byzshield_exp.clusters.sockets.member import Member
from byzshield_exp.clusters.sockets.wire import DTYPES, Header, Kind
from byzshield_exp.clusters.transport import Fetched, TransportOptions
from byzshield_exp.errors import LostServer
from byzshield_exp.rows.digests import bytes_of
from byzshield_exp.rows.message import Message


class SocketWorker:
    """Replicas leave while the next ones are computed; with digests, rows only when asked for.

    See :class:`~byzshield_exp.clusters.transport.Transport` for the verbs.
    """

    def __init__(
        self, seats: Seats, rank: int, options: TransportOptions, line: Line, run: int
    ) -> None:
        self.seats, self.rank = seats, rank
        self._reads_digests, self._line, self._run = options.reads_digests, line, run
        self._is_mesh = options.is_mesh
        self._member = Member(seats, rank, options, line, run, self._next)
        self._at_start = 0, 0
        self._said, self._copies = Said(), HostCopies()
        line.serve(self._answer)

    @property
    def events(self) -> list[str]:
        """Human-readable warnings; the reader clears them."""
        return self._member.events

    def introduce(self, said: bytes) -> None:
        """Send it to the server."""
        self._send(Header(Kind.CHECK, self._run, self.rank), said)

    def drop(self, rank: int, reason: str) -> None:
        """Do nothing: only the server does that."""

    def share(self, content: Tensor) -> None:
        """Wait for the server's.

        Raises:
            LostServer: if there is none any more.
        """
        header, payload = self._next()
        if header.kind is not Kind.SHARE:
            raise LostServer("the run ended before its first step")
        content.copy_(torch.frombuffer(payload, dtype=content.dtype).view_as(content))

    def publish(self, step: int | None, params: Tensor | None) -> int | None:
        """Wait for the next order."""
        if self._is_mesh and not self._member.begin():
            return None
        header, content = self._next()
        if header.kind is not Kind.ORDER:
            return None
        self._said.clear()
        self._copies.clear()
        if params is not None:
            params.copy_(torch.frombuffer(content, dtype=params.dtype))
        came, left = self._bytes()
        self._at_start = came - header.length, left
        return header.step

    def send(self, step: int, worker: int, file: int, message: Message) -> None:
        """Send a row or its digest; the row waits for being asked for."""
        row = self._copies.of(file, message.joined)
        kind, is_finite = Kind.ROW, False
        content: bytes | memoryview
        if self._reads_digests:
            kind = Kind.DIGEST
            content, is_finite = self._said.keep(worker, file, row, step)
        else:
            content = bytes_of(row).data
        head = Header(
            kind, self._run, self.rank, worker, file, step, dtype=DTYPES[row.dtype],
            finite=is_finite, loss=message.loss,
        )  # fmt: skip
        self._send(head, content)

    def collect(self, step: int, statement: Statement, lying: Collection[int]) -> None:
        """Say that all was sent, and how long it took."""
        self._send(Header(Kind.DONE, self._run, self.rank, step=step), statement.pack())

    def fetch(
        self, wanted: Mapping[int, Sequence[int]], refused: Collection[int] = ()
    ) -> list[Fetched]:
        """A thread of the connection answers, also while this one computes."""
        return []

    def round(
        self, step: int, posts: Mapping[int, bytes], expected: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """Post by way of the server.

        Raises:
            LostServer: if the run is over, or the server gone; if it is over, ``publish`` still
                says so.
        """
        return self._member.round(step, posts, expected, size)

    def swap(
        self,
        step: int,
        vectors: Mapping[tuple[int, int], Tensor],
        expected: Mapping[tuple[int, int], int],
    ) -> dict[tuple[int, int], Tensor]:
        """Swap with the other workers, for half of the timeout."""
        return self._member.swap(step, vectors, expected)

    def end(self) -> None:
        """Close the connections to the other workers; the server ends the run."""
        self._member.close()

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent since the order of this step came, without what is queued."""
        came, left = self._bytes()
        return came - self._at_start[0], left - self._at_start[1]

    def _bytes(self) -> tuple[int, int]:
        came, left = self._member.traffic
        return self._line.bytes_in + came, self._line.bytes_out + left

    def _next(self) -> tuple[Header, memoryview]:
        """The next message of this run."""
        while True:
            header, content = self._line.next()
            if header.run == self._run:
                return header, content

    def _send(self, header: Header, payload: bytes | memoryview) -> None:
        self._line.send(header.carrying(len(payload)).pack(), payload)

    def _answer(self, asked: Header) -> Parts:
        """The row that the server asks for; nothing for one that there is not."""
        row, _ = self._said.row(asked.worker, asked.file)
        if row is None:
            return ()
        content = bytes_of(row).data
        head = Header(
            Kind.ROW, self._run, self.rank, asked.worker, asked.file, asked.step,
            len(content), DTYPES[row.dtype],
        )  # fmt: skip
        return head.pack(), content
