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

    def begin(self) -> None:
        """Begin a step: all have read what they were sent, and no vector is kept."""
        self._dues.begin(self._last.number, {})
        if not self._last.number:
            self._connect()
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
        for rank, cells in self._gather(Kind.POSTS, step, lengths, self._timeout).items():
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

    def _connect(self) -> None:
        """Tell all ranks where the others listen, and what only these two can say."""
        ranks = range(1, self._seats.world_size)
        seconds = max(self._timeout, _START_S)
        places = self._gather(Kind.PLACE, 0, dict.fromkeys(ranks, PLACE_BYTES), seconds)
        tokens = {
            frozenset((one, other)): secrets.token_bytes(TOKEN_BYTES)
            for one in ranks
            for other in range(1, one)
        }
        nowhere, nothing = bytes(PLACE_BYTES), bytes(TOKEN_BYTES)
        for peer in self._hub.alive:
            told = [
                bytes(places.get(rank, nowhere)) + tokens.get(frozenset((rank, peer.rank)), nothing)
                for rank in ranks
            ]
            self._send([peer], Kind.PLACES, np.frombuffer(b"".join(told), dtype=np.uint8))
        self._gather(Kind.CONNECTED, 0, dict.fromkeys(ranks, 0), seconds)

    def _gather(
        self, kind: Kind, step: int, lengths: Mapping[int, int], seconds: float
    ) -> dict[int, np.ndarray]:
        """Wait for one message of each rank; drop those that are late."""
        exchange = self._next(step)
        came: dict[int, np.ndarray] = {}

        def due(rank: int, length: int) -> Due:
            place = np.empty(length, dtype=np.uint8)
            header = exchange.header(kind, rank, length)
            return Due(header, lambda: place, lambda: came.update({rank: place}))

        self._dues.begin(exchange.number, {rank: [due(rank, lengths[rank])] for rank in lengths})
        self._pump(lambda: not self._dues.late, seconds)
        for rank in self._dues.late:
            self._hub.lose(self._hub.peers[rank], f"it is silent for {seconds:.3g} s")
        return {rank: came[rank] for rank in lengths if rank in came}

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
