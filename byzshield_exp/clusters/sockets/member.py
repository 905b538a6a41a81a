"""A worker process among peers over sockets: posts by way of rank 0, vectors to the others."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from byzshield_exp.clusters.bundle import Pair, by_rank, check, pack, routes, unpack
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.dues import Exchange, vectors_due
from byzshield_exp.clusters.sockets.line import Line
from byzshield_exp.clusters.sockets.mesh import Mesh, connect, open_door, pack_place, unpack_places
from byzshield_exp.clusters.sockets.wire import Header, Kind
from byzshield_exp.clusters.transport import TransportOptions
from byzshield_exp.errors import LostServer
from byzshield_exp.rows.digests import bytes_of

_CONNECT_S = 15.0  # for the others to come; the server waits longer
_NOTHING = np.empty(0, dtype=np.uint8)


class Member:
    """The rounds and swaps of a worker process.

    Args of the constructor:
        seats: who plays whom.
        rank: of this process.
        options: how the run uses it.
        line: the connection to the server.
        run: its number.
        next_message: waits for the server's next message of this run.
    """

    def __init__(
        self,
        seats: Seats,
        rank: int,
        options: TransportOptions,
        line: Line,
        run: int,
        next_message: Callable[[], tuple[Header, memoryview]],
    ) -> None:
        self._seats, self._rank, self._options = seats, rank, options
        self._line, self._next_message = line, next_message
        self._last = Exchange(run, 0, 0)
        self._mesh: Mesh | None = None
        self._is_over = False

    @property
    def traffic(self) -> tuple[int, int]:
        """Received from and sent to the other workers so far."""
        return (0, 0) if self._mesh is None else self._mesh.traffic

    @property
    def events(self) -> list[str]:
        """Human-readable warnings."""
        return [] if self._mesh is None else self._mesh.events

    def begin(self) -> bool:
        """Begin a step: forget all vectors; before the first one, connect with the others.

        Returns:
            Whether the run goes on.
        """
        if self._mesh is not None:
            self._mesh.forget(self._last)
        elif not self._is_over:
            self._connect()
        return not self._is_over

    def round(
        self, step: int, posts: Mapping[int, bytes], expected: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """Post, and wait for what all have posted.

        Raises:
            LostServer: if the run is over.
        """
        exchange = self._next(step)
        ids = by_rank(expected, self._seats).get(self._rank, [])
        if ids:
            self._send(exchange, Kind.POSTS, pack(posts, ids, size).reshape(-1))
        content = self._hear(Kind.BUNDLE)
        if content is None:
            raise LostServer("the run ended in the middle of a step")
        return unpack(content, expected, size)

    def swap(
        self, step: int, vectors: Mapping[Pair, Tensor], expected: Mapping[Pair, int]
    ) -> dict[Pair, Tensor]:
        """Send, and receive for half of the timeout what has not been lost."""
        check(vectors, expected)
        exchange = self._next(step)
        came: dict[Pair, Tensor] = {}
        messages = {
            receiver: [self._message(exchange, at, vectors.get(pair)) for at, pair in enumerate(of)]
            for (sender, receiver), of in routes(expected, self._seats).items()
            if sender == self._rank != receiver
        }
        for header, content in messages.pop(0, ()):
            self._line.send(header.pack(), content.data)
        dues = vectors_due(exchange, expected, self._seats, self._rank, came)
        if self._mesh is not None:
            self._mesh.swap(exchange, messages, dues, self._options.worker_timeout / 2)
        own = routes(expected, self._seats).get((self._rank, self._rank), ())
        came |= {pair: vectors[pair] for pair in own if pair in vectors}
        return {pair: came[pair] for pair in expected if pair in came}

    def close(self) -> None:
        """Close the connections to the other workers."""
        if self._mesh is not None:
            self._mesh.close()
        self._mesh = None

    def _connect(self) -> None:
        exchange = self._next(0)
        with open_door(self._line.host) as (door, address):
            self._send(exchange, Kind.PLACE, np.frombuffer(pack_place(address), dtype=np.uint8))
            told = self._hear(Kind.PLACES)
            if told is None:
                return
            places = unpack_places(told)
            found = connect(door, places, self._rank, exchange.run, _CONNECT_S)
        self._mesh = Mesh(found, exchange.run, self._options.bucket)
        self._send(self._next(0), Kind.CONNECTED, _NOTHING)

    def _next(self, step: int) -> Exchange:
        self._last = Exchange(self._last.run, self._last.number + 1, step)
        return self._last

    def _message(
        self, exchange: Exchange, at: int, vector: Tensor | None
    ) -> tuple[Header, np.ndarray]:
        """The header and payload of a vector, or of its absence."""
        if vector is None:
            return exchange.header(Kind.WITHHELD, self._rank, at=at), _NOTHING
        content = bytes_of(vector.cpu())
        return exchange.header(Kind.VECTOR, self._rank, content.size, at), content

    def _send(self, exchange: Exchange, kind: Kind, content: np.ndarray) -> None:
        self._line.send(exchange.header(kind, self._rank, content.size).pack(), content.data)

    def _hear(self, kind: Kind) -> memoryview | None:
        """Wait for the server's next message; None: the run is over."""
        header, content = self._next_message()
        self._is_over = header.kind is not kind
        return None if self._is_over else content
