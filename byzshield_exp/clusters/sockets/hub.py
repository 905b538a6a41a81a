"""The server's end of all connections: one thread that no peer can hold up."""

import selectors
import socket
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic, sleep, thread_time
from typing import Protocol, runtime_checkable

from byzshield_exp import interrupts
from byzshield_exp.clusters.sockets.reader import Drain, Reader, Sink
from byzshield_exp.clusters.sockets.wire import Header, Rejected

_LOOK_S = 0.2  # how often a wait looks for a request to stop
_PAUSE_S = 1.0  # this thread neither looked nor computed for so long: its process was stopped
_DRAIN_S = 1.0  # after a deadline for what lies in the connections already
_END_S = 2.0  # for a last message to leave
_FLUSH_S = 0.005


@runtime_checkable
class Handler(Protocol):
    """What to do with messages."""

    def accept(self, peer: "Peer", header: Header) -> Sink:
        """Return where the payload goes; raises :class:`Rejected`."""
        ...

    def reject(self, peer: "Peer", rejected: Rejected) -> None:
        """Note what was rejected."""
        ...

    def lost(self, peer: "Peer", reason: str) -> None:
        """Note that a peer is gone for good."""
        ...


class Peer:
    """One connection.

    Attributes:
        rank: at its other end.
        is_alive: whether it is open.
        is_held: whether nothing is read from it.
        bytes_in: received so far.
        bytes_out: sent so far.
    """

    def __init__(self, rank: int, connection: socket.socket) -> None:
        self.rank = rank
        self.connection = connection
        self.is_alive, self.is_held = True, False
        self.bytes_in = self.bytes_out = 0
        self.outbox: deque[memoryview] = deque()
        self.reader: Reader  # set by the hub


class Hub:
    """All connections of the server.

    Attributes:
        peers: by rank.
    """

    def __init__(self, connections: dict[int, socket.socket]) -> None:
        self.peers = {rank: Peer(rank, connections[rank]) for rank in sorted(connections)}
        self._selector = selectors.DefaultSelector()
        self._handler: Handler | None = None
        self._bucket = 1 << 20
        self._paused = 0.0
        self._looked_at, self._computed = monotonic(), thread_time()
        for peer in self.peers.values():
            peer.connection.setblocking(False)
            peer.reader = Reader(partial(self._accept, peer), partial(self._reject, peer))
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)

    @property
    def alive(self) -> list[Peer]:
        """The peers that are not gone."""
        return [peer for peer in self.peers.values() if peer.is_alive]

    def listen_to(self, handler: Handler, longest: int, bucket: int) -> None:
        """Give all messages to a handler from now on.

        Args:
            handler: of a run.
            longest: bytes of the longest payload; a longer one ends its connection.
            bucket: bytes that are read at a time.
        """
        self._handler, self._bucket = handler, bucket
        self.forget()  # what is of the run before
        for peer in self.alive:
            peer.reader.longest = max(peer.reader.longest, longest)
            self.hold(peer, False)

    def forget(self) -> None:
        """Skip the rest of the payloads that are being read."""
        for peer in self.alive:
            peer.reader.forget()

    def hold(self, peer: Peer, is_held: bool = True) -> None:
        """Read nothing from a peer until it is held no longer."""
        if peer.is_alive and peer.is_held != is_held:
            peer.is_held = is_held
            self._watch(peer)

    def send(self, peer: Peer, *parts: bytes | memoryview) -> None:
        """Queue a message and send what can be sent at once; the memory must stay as it is."""
        if peer.is_alive:
            was_empty = not peer.outbox
            peer.outbox += [memoryview(part).cast("B") for part in parts if len(part)]
            if was_empty:
                self._write(peer)

    def now(self) -> float:
        """Return seconds, without those in which this process was stopped."""
        return monotonic() - self._paused

    def pump(self, done: Callable[[], bool], deadline: Callable[[], float]) -> bool:
        """Receive and send until ``done()``; False when the deadline (of ``now``) comes first.

        What has arrived by then is still read.

        Raises:
            Stopped: when the process is asked to stop.
        """
        drained = 0.0
        while not done():
            interrupts.check()
            self._leave_out_pauses(0.0)
            start = self.now()
            left = deadline() - start
            was_quiet = not self._turn(min(max(left, 0.0), _LOOK_S))
            if left <= 0:
                drained += self.now() - start
                if was_quiet or drained > _DRAIN_S:
                    return done()
        return True

    def _turn(self, seconds: float) -> bool:
        """Serve all connections once; return whether there was anything to do."""
        ready = self._selector.select(seconds)
        for key, events in ready:
            if events & selectors.EVENT_READ:
                self._read(key.data)
            if events & selectors.EVENT_WRITE and key.data.is_alive:
                self._write(key.data)
        self._leave_out_pauses(seconds)
        return bool(ready)

    def _leave_out_pauses(self, waited: float) -> None:
        """Take a stop since the last look, between looks too, out of the clock's time."""
        now, computed = monotonic(), thread_time()
        over = now - self._looked_at - waited - (computed - self._computed)
        if over > _PAUSE_S:
            self._paused += over
        self._looked_at, self._computed = now, computed

    def flush(self, peers: Iterable[Peer]) -> None:
        """Wait at most 2 s until everything has been sent to these peers; read nothing."""
        waiting = list(peers)
        deadline = monotonic() + _END_S
        while monotonic() < deadline:
            waiting = [peer for peer in waiting if peer.is_alive and peer.outbox]
            if not waiting:
                return
            for peer in waiting:
                self._write(peer)
            sleep(_FLUSH_S)

    def lose(self, peer: Peer, reason: str) -> None:
        """Close a connection for good."""
        if not peer.is_alive:
            return
        peer.is_alive = False
        peer.outbox.clear()
        self._unwatch(peer)
        peer.connection.close()
        if self._handler is not None:
            self._handler.lost(peer, reason)

    def close(self) -> None:
        """Close all connections."""
        self._handler = None
        for peer in self.alive:
            self.lose(peer, "")
        self._selector.close()

    def _accept(self, peer: Peer, header: Header) -> Sink:
        if self._handler is None:
            return Drain()
        return self._handler.accept(peer, header)

    def _reject(self, peer: Peer, rejected: Rejected) -> None:
        if self._handler is not None:
            self._handler.reject(peer, rejected)

    def _read(self, peer: Peer) -> None:
        try:
            count = peer.connection.recv_into(peer.reader.room(self._bucket))
            if count == 0:
                self.lose(peer, "it is gone")
                return
            peer.bytes_in += count
            peer.reader.fill(count)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.lose(peer, error.strerror or str(error))
        except Rejected as rejected:
            self.lose(peer, f"it sent {rejected}")

    def _write(self, peer: Peer) -> None:
        try:
            while peer.outbox:
                sent = peer.connection.sendmsg(list(peer.outbox)[:8])
                peer.bytes_out += sent
                while peer.outbox and sent >= len(peer.outbox[0]):
                    sent -= len(peer.outbox.popleft())
                if sent:
                    peer.outbox[0] = peer.outbox[0][sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.lose(peer, error.strerror or str(error))
            return
        self._watch(peer)

    def _watch(self, peer: Peer) -> None:
        """Wait for what there is to do at a connection."""
        wanted = 0 if peer.is_held else selectors.EVENT_READ
        wanted |= selectors.EVENT_WRITE if peer.outbox else 0
        self._unwatch(peer)
        if wanted:
            self._selector.register(peer.connection, wanted, peer)

    def _unwatch(self, peer: Peer) -> None:
        if peer.connection in self._selector.get_map():
            self._selector.unregister(peer.connection)
