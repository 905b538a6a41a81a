"""Headers, and the stream of bytes that is cut into messages."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socket_table import FLOAT

from byzshield_exp.clusters import (
    Statement,
)
from byzshield_exp.clusters.sockets.reader import Collect, Reader
from byzshield_exp.clusters.sockets.wire import (
    HEADER_BYTES,
    Header,
    Kind,
    Rejected,
    unpack,
)


def test_a_header_survives_the_wire():
    header = Header(Kind.ROW, 3, 2, 14, 24, 2**40, 2**33, FLOAT, True, 0.5)
    packed = header.pack()
    assert len(packed) == HEADER_BYTES
    assert unpack(packed) == header
    assert math.isnan(unpack(Header(Kind.DONE, 0, 1).pack()).loss)


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_any_bytes_are_a_header_or_rejected(content):
    with pytest.raises(Rejected, match="no message"):
        unpack(content)


def test_a_statement_survives_the_wire():
    seconds = {"data": 0.5, "compute": 1.5, "attack": 0.0, "send": 0.25, "total": 3.0}
    said = Statement(seconds, {**seconds, "total": 2.5}, 7, 1000, 2000)
    assert Statement.unpack(said.pack()) == said


class Noted:
    """Takes messages and notes them."""

    def __init__(self, longest=1000):
        self.messages, self.rejected = [], []
        self.reader = Reader(self.accept, self.rejected.append, longest)

    def accept(self, header):
        if header.worker == 99:
            raise Rejected("worker=99")
        return Collect(header.length, lambda content: self.messages.append((header, content)))

    def feed(self, content, cuts):
        content, at = memoryview(content), 0
        for cut in [*cuts, len(content)]:
            while at < len(content) and cut > 0:
                room = self.reader.room(cut)
                assert 1 <= len(room) <= max(cut, HEADER_BYTES)
                count = min(len(room), cut, len(content) - at)
                room[:count] = content[at : at + count]
                at += count
                cut -= count
                self.reader.fill(count)


@given(st.lists(st.binary(max_size=200), max_size=6), st.lists(st.integers(1, 100), max_size=30))
def test_a_stream_is_cut_into_its_messages(payloads, cuts):
    noted = Noted()
    headers = [
        Header(Kind.SHARE, 1, 2, number, loss=0.0).carrying(len(content))
        for number, content in enumerate(payloads)
    ]
    stream = b"".join(h.pack() + c for h, c in zip(headers, payloads, strict=True))
    noted.feed(stream, cuts)
    assert noted.messages == list(zip(headers, payloads, strict=True))


def test_a_rejected_message_is_skipped_and_the_next_one_is_read():
    noted = Noted()
    bad, good = Header(Kind.ROW, 1, 2, 99, length=70), Header(Kind.ROW, 1, 2, 5, length=3, loss=1.0)
    noted.feed(bad.pack() + bytes(70) + good.pack() + b"abc", [10, 80])
    assert [str(rejected) for rejected in noted.rejected] == ["worker=99"]
    assert noted.messages == [(good, b"abc")]


def test_a_message_that_is_too_long_is_not_read():
    with pytest.raises(Rejected, match="2,000 bytes") as rejected:
        Noted().feed(Header(Kind.ROW, 1, 2, length=2000).pack(), [])
    assert rejected.value.is_fatal
