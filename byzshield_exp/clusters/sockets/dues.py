"""The messages that are due in a round or a swap: each is known before it comes."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.clusters.bundle import Pair, routes
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.hub import Hub, Peer
from byzshield_exp.clusters.sockets.reader import Drain, Sink
from byzshield_exp.clusters.sockets.wire import Header, Kind, Rejected
from byzshield_exp.rows.digests import bytes_of

ANY_LENGTH = 1 << 62  # only what is due is taken, and what comes too late is drained


@dataclass(frozen=True)
class Exchange:
    """A round or a swap.

    Attributes:
        run: number of the run.
        number: of it in the run.
        step: of the run.
    """

    run: int
    number: int
    step: int

    def header(self, kind: Kind, rank: int, length: int = 0, at: int = 0) -> Header:
        """Return the header of a message.

        Args:
            kind: of the message.
            rank: of its sender.
            length: bytes of the payload.
            at: of a vector, its place among those from the same rank to the same one.
        """
        return Header(kind, self.run, rank, at, self.number, self.step, length, loss=0.0)


@dataclass(frozen=True, eq=False)
class Due:
    """A message that a rank owes.

    Attributes:
        header: that it has.
        room: makes the memory for its ``header.length`` bytes.
        came: is called when they are there.
    """

    header: Header
    room: Callable[[], np.ndarray]
    came: Callable[[], None]

    @property
    def withheld(self) -> Header | None:
        """The header that may come in place of a vector."""
        is_vector = self.header.kind is Kind.VECTOR
        return replace(self.header, kind=Kind.WITHHELD, length=0) if is_vector else None


class Dues:
    """What ranks owe, each in a known order.

    Who has sent all that it owes is not heard until the next round or swap begins: nobody knows
    what is due then.

    Args of the constructor:
        hub: the connections.
        run: its number.
    """

    def __init__(self, hub: Hub, run: int) -> None:
        self._hub, self._run = hub, run
        self._number = 0
        self._of: dict[int, deque[Due]] = {}

    @property
    def late(self) -> list[int]:
        """The ranks that owe something."""
        return sorted(self._of)

    def begin(self, number: int, dues: Mapping[int, list[Due]]) -> None:
        """Begin a round or a swap; forget what is still on its way of another one.

        Args:
            number: of it in the run.
            dues: by rank.
        """
        self._number = number
        alive = [peer for peer in self._hub.alive if dues.get(peer.rank)]
        self._of = {peer.rank: deque(dues[peer.rank]) for peer in alive}
        self._hub.forget()
        for peer in self._hub.alive:
            self._hub.hold(peer, peer.rank not in self._of)

    def accept(self, peer: Peer, header: Header) -> Sink:
        """Return where the payload of the next message goes: nowhere, if it comes too late.

        Raises:
            Rejected: if it is not what is due, fatal.
        """
        if (header.run, header.file) < (self._run, self._number):
            return Drain()
        due = next(iter(self._of.get(peer.rank, ())), None)
        if due is not None and header == due.header:
            return Into(due.room(), partial(self._came, peer, due.came))
        if due is not None and header == due.withheld:
            return Into(np.empty(0, dtype=np.uint8), partial(self._came, peer, lambda: None))
        wanted = "nothing" if due is None else _named(due.header)
        raise Rejected(f"{_named(header)} instead of {wanted}", is_fatal=True)

    def lose(self, rank: int) -> None:
        """Expect nothing more of a rank."""
        self._of.pop(rank, None)

    def _came(self, peer: Peer, use: Callable[[], None]) -> None:
        queue = self._of[peer.rank]
        queue.popleft()
        if not queue:
            del self._of[peer.rank]
            self._hub.hold(peer)
        use()


class Into:
    """A sink that puts the payload where it belongs.

    Args of the constructor:
        content: takes the bytes.
        done: is called when they are there.
    """

    def __init__(self, content: np.ndarray, done: Callable[[], None]) -> None:
        self._content, self._at, self._done = content, 0, done

    def room(self, most: int) -> memoryview:
        """Return the memory of the rest."""
        return self._content[self._at : self._at + most].data

    def fill(self, count: int) -> None:
        """Advance."""
        self._at += count

    def close(self) -> None:
        """Hand them out."""
        self._done()


def vectors_due(
    exchange: Exchange,
    expected: Mapping[Pair, int],
    seats: Seats,
    rank: int,
    came: dict[Pair, Tensor],
) -> dict[int, list[Due]]:
    """Return by rank the vectors that it owes to this one; they are put into ``came``."""
    return {
        sender: [
            _vector_due(exchange.header(Kind.VECTOR, sender, 4 * expected[pair], at), pair, came)
            for at, pair in enumerate(pairs)
        ]
        for (sender, receiver), pairs in routes(expected, seats).items()
        if receiver == rank != sender
    }


def _vector_due(header: Header, pair: Pair, came: dict[Pair, Tensor]) -> Due:
    vectors: list[Tensor] = []

    def room() -> np.ndarray:
        vectors.append(torch.empty(header.length // 4, dtype=torch.float32))
        return bytes_of(vectors[0])

    def keep() -> None:
        came[pair] = vectors[0]

    return Due(header, room, keep)


def _named(header: Header) -> str:
    return (
        f"{header.kind.name} {header.worker} of {header.length:,} bytes of rank {header.sender} "
        f"in exchange {header.file} of step {header.step + 1}"
    )
