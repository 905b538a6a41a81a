"""A worker's end of its connection to the server."""

import contextlib
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue

from byzshield_exp.clusters.sockets.wire import HEADER_BYTES, Header, Kind, Rejected, unpack
from byzshield_exp.errors import LostServer

Parts = tuple[bytes | memoryview, ...]


class Line:
    """Send in the order of the calls while the caller computes; answer the server's requests.

    Attributes:
        bytes_in: received so far.
        bytes_out: sent so far.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._outbox: SimpleQueue[Parts] = SimpleQueue()
        self._inbox: SimpleQueue[tuple[Header, memoryview] | None] = SimpleQueue()
        self._lost = ""
        self._answer: Callable[[Header], Parts] | None = None
        self._order = bytearray()  # the parameters of the last order
        self.bytes_in = self.bytes_out = 0
        for work in (self._receive, self._deliver):
            threading.Thread(target=work, daemon=True).start()

    @property
    def host(self) -> str:
        """This machine's address on the way to the server; empty: both are on one machine."""
        if self._connection.family == socket.AF_UNIX:
            return ""
        return str(self._connection.getsockname()[0])

    def serve(self, answer: Callable[[Header], Parts]) -> None:
        """Answer requests for rows with ``answer(header)`` from now on."""
        self._answer = answer

    def send(self, *parts: bytes | memoryview) -> None:
        """Queue a message; the memory must stay as it is until the next order.

        Raises:
            LostServer: if the connection is gone.
        """
        if self._lost:
            raise LostServer(self._lost)
        self._outbox.put(parts)

    def next(self) -> tuple[Header, memoryview]:
        """Wait for the next message that is no fetch; an order's content is good until the next.

        The server gives an order only when all that it asked for before was sent.

        Raises:
            LostServer: if the connection is gone.
        """
        message = self._inbox.get()
        if message is None:
            self._inbox.put(None)  # for whoever asks again
            raise LostServer(self._lost)
        return message

    def close(self) -> None:
        """Close the connection, at once."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # wakes the threads
        self._connection.close()

    def _receive(self) -> None:
        try:
            while True:
                header = unpack(self._read(memoryview(bytearray(HEADER_BYTES))))
                if header.kind is Kind.FETCH and self._answer is not None:
                    self._outbox.put(self._answer(header))
                    continue
                place = self._order  # is used again: new memory for each order takes time
                if header.kind is not Kind.ORDER or len(place) != header.length:
                    place = bytearray(header.length)
                if header.kind is Kind.ORDER:
                    self._order = place
                self._inbox.put((header, self._read(memoryview(place))))
        except (OSError, Rejected) as error:
            self._lose(error)

    def _read(self, place: memoryview) -> memoryview:
        left = place
        while len(left):
            count = self._connection.recv_into(left)
            if count == 0:
                raise ConnectionError("it closed the connection")
            left = left[count:]
        self.bytes_in += len(place)
        return place

    def _deliver(self) -> None:
        try:
            while True:
                for part in self._outbox.get():
                    self._connection.sendall(part)
                    self.bytes_out += len(part)
        except OSError as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._lost = self._lost or f"lost the server: {error}"
        self._inbox.put(None)
