"""The connections between worker processes, by which peers swap vectors."""

import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

import numpy as np

from byzshield_exp.clusters.sockets.connecting import admit, dial, listen
from byzshield_exp.clusters.sockets.dues import ANY_LENGTH, Due, Dues, Exchange
from byzshield_exp.clusters.sockets.hub import Hub, Peer
from byzshield_exp.clusters.sockets.reader import Sink
from byzshield_exp.clusters.sockets.wire import Header, Kind, Rejected

PLACE_BYTES = 256  # of an address, with zeros behind it
TOKEN_BYTES = 32


@dataclass(frozen=True)
class Contact:
    """How to reach a worker process.

    Attributes:
        address: a path or ``host:port``; empty: it is gone.
        token: what only it, this process and the server know.
    """

    address: str
    token: bytes


class Mesh:
    """A worker's connections to the others; one that is lost stays lost.

    Nobody is waited for here but in a swap, and that a vector is missing is all that it costs.

    Args of the constructor:
        connections: by rank.
        run: its number.
        bucket: bytes that are read at a time.

    Attributes:
        events: human-readable warnings.
    """

    def __init__(self, connections: dict[int, socket.socket], run: int, bucket: int) -> None:
        self._hub = Hub(connections)
        self._dues = Dues(self._hub, run)
        self.events: list[str] = []
        self._hub.listen_to(self, ANY_LENGTH, bucket)
        self._dues.begin(0, {})

    @property
    def traffic(self) -> tuple[int, int]:
        """Received and sent so far."""
        peers = self._hub.peers.values()
        return sum(peer.bytes_in for peer in peers), sum(peer.bytes_out for peer in peers)

    def swap(
        self,
        exchange: Exchange,
        messages: Mapping[int, Iterable[tuple[Header, np.ndarray]]],
        dues: Mapping[int, list[Due]],
        seconds: float,
    ) -> None:
        """Send and receive, no longer than allowed.

        Args:
            exchange: number and step.
            messages: by rank, headers and payloads, whose memory must stay until the next swap.
            dues: by rank.
            seconds: after which the rest is given up.
        """
        for peer in self._unread():
            self._hub.lose(peer, "it has not read the vectors of the last swap")
        self._dues.begin(exchange.number, dues)
        for rank, of_rank in messages.items():
            for header, content in of_rank:
                if rank in self._hub.peers:
                    self._hub.send(self._hub.peers[rank], header.pack(), content.data)
        deadline = self._hub.now() + seconds
        self._hub.pump(lambda: not (self._dues.late or self._unread()), lambda: deadline)

    def forget(self, exchange: Exchange) -> None:
        """Forget all vectors of the swaps so far."""
        self._dues.begin(exchange.number, {})

    def close(self) -> None:
        """Close all connections."""
        self._hub.close()

    def _unread(self) -> list[Peer]:
        return [peer for peer in self._hub.alive if peer.outbox]

    # What the hub tells.

    def accept(self, peer: Peer, header: Header) -> Sink:
        """Take a vector that is due.

        Raises:
            Rejected: if it is none; that ends the connection.
        """
        return self._dues.accept(peer, header)

    def reject(self, peer: Peer, rejected: Rejected) -> None:
        """Do nothing: what is rejected here is fatal."""

    def lost(self, peer: Peer, reason: str) -> None:
        """Wait no longer for this rank's vectors."""
        self._dues.lose(peer.rank)
        self.events.append(f"lost the connection to rank {peer.rank}: {reason}")


@contextmanager
def open_door(host: str) -> Iterator[tuple[socket.socket, str]]:
    """Listen for other workers; yields the door and its address.

    Args:
        host: this machine's address; empty: all are on this machine, in a folder of the user's own.
    """
    if not host:
        with tempfile.TemporaryDirectory(prefix="byzshield-") as folder:
            address = str(Path(folder) / "worker")
            with listen(address) as door:
                yield door, address
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, backlog=socket.SOMAXCONN) as door:
        yield door, f"{host}:{door.getsockname()[1]}"


def pack_place(address: str) -> bytes:
    """Return an address as :data:`PLACE_BYTES` bytes."""
    return address.encode().ljust(PLACE_BYTES, b"\0")


def unpack_places(told: memoryview) -> dict[int, Contact]:
    """Read what the server says: by rank, from 1, its place."""
    content, size, found = bytes(told), PLACE_BYTES + TOKEN_BYTES, {}
    for rank, at in enumerate(range(0, len(content), size), start=1):
        address, token = content[at : at + PLACE_BYTES], content[at + PLACE_BYTES : at + size]
        found[rank] = Contact(address.rstrip(b"\0").decode(errors="replace"), token)
    return found


def connect(
    door: socket.socket, places: Mapping[int, Contact], rank: int, run: int, seconds: float
) -> dict[int, socket.socket]:
    """Call the ranks below this one, and let in those above it; who does not come is missing."""
    deadline, below = monotonic() + seconds, range(1, rank)
    with ThreadPoolExecutor(rank) as pool:  # those who do not answer cost their time once
        called = [*pool.map(lambda other: _call(places[other], rank, run), below)]
    above = {
        other: place.token for other, place in places.items() if other > rank and place.address
    }
    answered = {other: end for other, end in zip(below, called, strict=True) if end is not None}
    return answered | admit(door, above, deadline)


def _call(contact: Contact, rank: int, run: int) -> socket.socket | None:
    """Connect with a rank; its address is its own word, so it may be anything."""
    with suppress(OSError, ValueError, OverflowError):
        if not contact.address.startswith("/"):
            ip_address(contact.address.rpartition(":")[0])  # a name could take long to look up
        connection = dial(contact.address)
        hello = Header(Kind.HELLO, run, rank, length=TOKEN_BYTES).pack()
        connection.sendall(hello + contact.token)
        return connection
    return None
