"""Cutting a stream of bytes into messages, without believing any of them."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from byzshield_exp.clusters.sockets.wire import HEADER_BYTES, Header, Rejected, unpack

_DRAIN = bytearray(1 << 20)  # what nobody reads


@runtime_checkable
class Sink(Protocol):
    """Where the payload of one message goes."""

    def room(self, most: int) -> memoryview:
        """Where to put the next bytes, ``1..most`` of them."""
        ...

    def fill(self, count: int) -> None:
        """``count`` bytes were put there."""
        ...

    def close(self) -> None:
        """The payload is complete."""
        ...


class Drain:
    """A sink that forgets."""

    def room(self, most: int) -> memoryview:
        """A place that is written over again and again."""
        return memoryview(_DRAIN)[:most]

    def fill(self, count: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Collect:
    """A sink for a few bytes; hands them out when they are complete."""

    def __init__(self, length: int, use: Callable[[bytes], None]) -> None:
        self._content, self._at, self._use = bytearray(length), 0, use

    def room(self, most: int) -> memoryview:
        """The rest of the bytes."""
        return memoryview(self._content)[self._at : self._at + most]

    def fill(self, count: int) -> None:
        """Go on behind them."""
        self._at += count

    def close(self) -> None:
        """Hand them out."""
        self._use(bytes(self._content))


class Reader:
    """Feeds one peer's stream to sinks.

    Args of the constructor:
        accept: ``accept(header) -> sink`` for the payload; raises :class:`Rejected`.
        reject: ``reject(rejected)`` for messages that are not fatal; their payload is skipped.

    Attributes:
        longest: bytes; a message that announces more is fatal.
    """

    def __init__(
        self, accept: Callable[[Header], Sink], reject: Callable[[Rejected], None], longest: int = 0
    ) -> None:
        self._accept, self._reject, self.longest = accept, reject, longest
        self._head = bytearray(HEADER_BYTES)
        self._got = 0
        self._left = 0
        self._sink: Sink | None = None

    def room(self, most: int) -> memoryview:
        """Where to put the next bytes of the stream, at most ``most``, at least one."""
        if self._sink is None:
            return memoryview(self._head)[self._got :]
        return self._sink.room(min(most, self._left))

    def fill(self, count: int) -> None:
        """``count`` bytes of the stream were put there.

        Raises:
            Rejected: if what follows cannot be understood.
        """
        if self._sink is None:
            self._got += count
            if self._got == HEADER_BYTES:
                self._got = 0
                self._begin(unpack(self._head))
            return
        self._sink.fill(count)
        self._left -= count
        if self._left == 0:
            self._end()

    def forget(self) -> None:
        """Skip the rest of the payload that is being read."""
        if self._sink is not None:
            self._sink = Drain()

    def _begin(self, header: Header) -> None:
        if header.length > self.longest:
            raise Rejected(f"a message of {header.length:,} bytes", is_fatal=True)
        try:
            self._sink = self._accept(header)
        except Rejected as rejected:
            if rejected.is_fatal:
                raise
            self._reject(rejected)
            self._sink = Drain()
        self._left = header.length
        if self._left == 0:
            self._end()

    def _end(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            try:
                sink.close()
            except Rejected as rejected:
                if rejected.is_fatal:
                    raise
                self._reject(rejected)
