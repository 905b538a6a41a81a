"""Rank 0 among peers over sockets: who is silent or talks nonsense is dropped for good."""

import secrets
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from byzshield_exp.clusters.bundle import Pair, by_rank, pack, unpack
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.dues import Due, Dues, Exchange, vectors_due
from byzshield_exp.clusters.sockets.hub import Hub, Peer
from byzshield_exp.clusters.sockets.mesh import PLACE_BYTES, TOKEN_BYTES
from byzshield_exp.clusters.sockets.wire import Kind

_START_S = 30.0  # at least, for all to connect with each other


class Rounds:
    """Has the other ranks connect with each other, and carries their posts.

    Each is heard only while it owes something, as nobody knows before what is due next.

    Args of the constructor:
        hub: the connections.
        dues: what is due at them.
        seats: who plays whom.
        run: its number.
        timeout: seconds for which a rank is waited for.
    """

    def __init__(self, hub: Hub, dues: Dues, seats: Seats, run: int, timeout: float) -> None:
        self._hub, self._dues, self._seats, self._timeout = hub, dues, seats, timeout
        self._last = Exchange(run, 0, 0)
        self._ranks = range(1, seats.world_size)
        self._places: dict[int, np.ndarray] | None = None

    def open(self) -> None:
        """Begin a run: a rank may tell its place while others have not introduced themselves."""
        self._places = self._expect(Kind.PLACE, 0, dict.fromkeys(self._ranks, PLACE_BYTES))

    def begin(self) -> None:
        """Begin a step: all have read what they were sent, and no vector is kept."""
        if self._places is not None:
            self._connect(self._places)
            self._places = None
        self._dues.begin(self._last.number, {})
        self._pump(lambda: not self._unread(), self._timeout)
        for peer in self._unread():
            self._hub.lose(peer, f"it has read nothing for {self._timeout:.3g} s")

    def round(
        self, step: int, posts: Mapping[int, bytes], expected: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """Wait for the posts of all ranks, and send all of them to each."""
        ids = by_rank(expected, self._seats)
        lengths = {rank: len(of_rank) * (1 + size) for rank, of_rank in ids.items()}
        found = unpack(pack(posts, ids.get(0, ()), size), ids.get(0, ()), size)
        came = self._expect(Kind.POSTS, step, lengths)
        self._wait(self._timeout)
        for rank, cells in came.items():
            found |= unpack(cells, ids[rank], size)
        self._send(self._hub.alive, Kind.BUNDLE, pack(found, expected, size))
        return {one: found[one] for one in expected if one in found}

    def swap(self, step: int, expected: Mapping[Pair, int]) -> dict[Pair, Tensor]:
        """Wait for the vectors that go to rank 0."""
        came: dict[Pair, Tensor] = {}
        exchange = self._next(step)
        self._dues.begin(exchange.number, vectors_due(exchange, expected, self._seats, 0, came))
        self._pump(lambda: not self._dues.late, self._timeout / 2)
        return {pair: came[pair] for pair in expected if pair in came}

    def _connect(self, places: Mapping[int, np.ndarray]) -> None:
        """Tell all ranks where the others listen, and what only these two can say."""
        seconds = max(self._timeout, _START_S)
        self._wait(seconds)
        tokens = {
            frozenset((one, other)): secrets.token_bytes(TOKEN_BYTES)
            for one in self._ranks
            for other in range(1, one)
        }
        nowhere, nothing = bytes(PLACE_BYTES), bytes(TOKEN_BYTES)
        for peer in self._hub.alive:
            told = [
                bytes(places.get(rank, nowhere)) + tokens.get(frozenset((rank, peer.rank)), nothing)
                for rank in self._ranks
            ]
            self._send([peer], Kind.PLACES, np.frombuffer(b"".join(told), dtype=np.uint8))
        self._expect(Kind.CONNECTED, 0, dict.fromkeys(self._ranks, 0))
        self._wait(seconds)

    def _expect(self, kind: Kind, step: int, lengths: Mapping[int, int]) -> dict[int, np.ndarray]:
        """Let each rank owe a message; return what comes, by rank, as it comes."""
        exchange = self._next(step)
        came: dict[int, np.ndarray] = {}

        def due(rank: int, length: int) -> Due:
            room = np.empty(length, dtype=np.uint8)
            header = exchange.header(kind, rank, length)
            return Due(header, lambda: room, lambda: came.update({rank: room}))

        self._dues.begin(exchange.number, {rank: [due(rank, lengths[rank])] for rank in lengths})
        return came

    def _wait(self, seconds: float) -> None:
        """Wait until nobody owes anything; drop who is late."""
        self._pump(lambda: not self._dues.late, seconds)
        for rank in self._dues.late:
            self._hub.lose(self._hub.peers[rank], f"it is silent for {seconds:.3g} s")

    def _next(self, step: int) -> Exchange:
        self._last = Exchange(self._last.run, self._last.number + 1, step)
        return self._last

    def _send(self, peers: Sequence[Peer], kind: Kind, content: np.ndarray) -> None:
        head = self._last.header(kind, 0, content.size).pack()
        for peer in peers:
            self._hub.send(peer, head, content.data)

    def _unread(self) -> list[Peer]:
        return [peer for peer in self._hub.alive if peer.outbox]

    def _pump(self, is_done: Callable[[], bool], seconds: float) -> None:
        deadline = self._hub.now() + seconds
        self._hub.pump(is_done, lambda: deadline)
