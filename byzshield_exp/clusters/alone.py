"""One process plays everybody: nothing travels."""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from byzshield_exp.clusters.bundle import check
from byzshield_exp.clusters.inbox import Inbox, Statement
from byzshield_exp.clusters.said import Said
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.transport import Fetched, TransportOptions
from byzshield_exp.rows.message import Message


class Alone:
    """The transport of a run in one process: see :class:`Transport`."""

    rank = 0
    traffic = 0, 0

    def __init__(self, seats: Seats, reads_digests: bool) -> None:
        self.seats = seats
        self.events: list[str] = []
        self._reads_digests = reads_digests
        self._inbox = Inbox.empty(seats.assignment, reads_digests)
        self._said = Said()

    def introduce(self, said: bytes) -> dict[int, bytes]:
        """Do nothing: there is no other rank."""
        return {}

    def drop(self, rank: int, reason: str) -> None:
        """Do nothing: there is no other rank."""

    def share(self, content: Tensor) -> None:
        """Do nothing: the tensor is here."""

    def publish(self, step: int | None, params: Tensor | None) -> int | None:
        """Empty the inbox."""
        self._inbox = Inbox.empty(self.seats.assignment, self._reads_digests)
        self._said.clear()
        return step

    def send(self, step: int, worker: int, file: int, message: Message) -> None:
        """Put a replica into the inbox."""
        place, row = self.seats.place_of[worker, file], message.joined
        if self._reads_digests:
            digest, is_finite = self._said.keep(worker, file, row, step)
            self._inbox.put(file, place, digest, is_finite, message.loss)
        else:
            self._inbox.put(file, place, row, False, message.loss)

    def collect(self, step: int, statement: Statement, lying: Collection[int]) -> Inbox:
        """Return the inbox."""
        self._inbox.statements[0] = statement
        return self._inbox

    def fetch(
        self, wanted: Mapping[int, Sequence[int]], refused: Collection[int] = ()
    ) -> list[Fetched]:
        """Return the rows behind the digests."""
        return [
            Fetched(file, workers[0], *self._said.row(workers[0], file))
            for file, workers in wanted.items()
        ]

    def round(
        self, step: int, posts: Mapping[int, bytes], expected: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """Return the posts."""
        return {one: posts[one] for one in expected if one in posts}

    def swap(
        self,
        step: int,
        vectors: Mapping[tuple[int, int], Tensor],
        expected: Mapping[tuple[int, int], int],
    ) -> dict[tuple[int, int], Tensor]:
        """Return the vectors themselves."""
        check(vectors, expected)
        return {pair: vectors[pair] for pair in expected if pair in vectors}

    def end(self) -> None:
        """Do nothing: no rank waits."""


class AloneChannel:
    """The channel of a process that is alone; see :class:`Channel`."""

    rank = 0
    world_size = 1
    backend = "alone"
    run = 0

    def open(self, seats: Seats, options: TransportOptions, rows: Tensor) -> Alone:
        """Open the transport of a run."""
        return Alone(seats, options.reads_digests)

    def close(self) -> None:
        """Do nothing: there is no connection."""
