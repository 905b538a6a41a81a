"""A worker's end of the sockets."""

import socket

import pytest
import torch
from socket_table import MOLS, SIZE, row_of

from byzshield_exp.clusters import Options, Seats
from byzshield_exp.clusters.sockets.channel import WorkerChannel
from byzshield_exp.clusters.sockets.line import Line
from byzshield_exp.clusters.sockets.wire import HEADER_BYTES, Header, Kind, unpack
from byzshield_exp.errors import LostServer
from byzshield_exp.rows.digests import bytes_of
from byzshield_exp.rows.message import Message


def test_a_worker_hears_that_the_server_is_gone():
    ours, theirs = socket.socketpair()
    line = Line(ours)
    theirs.close()
    with pytest.raises(LostServer, match="lost the server"):
        line.next()
    with pytest.raises(LostServer, match="lost the server"):
        line.send(b"x")
    line.close()


def test_rows_are_fetched_from_a_worker_while_it_computes():
    ours, theirs = socket.socketpair()
    line = Line(ours)
    worker = WorkerChannel(1, 4, line, run=1).open(Seats(MOLS, 4), Options(True), torch.zeros(0))
    params = torch.zeros(SIZE)
    order = torch.arange(float(SIZE))
    payload = bytes(bytes_of(order))
    theirs.sendall(Header(Kind.ORDER, 1, 0, step=9, length=len(payload)).pack() + payload)
    assert worker.publish(None, params) == 9
    assert torch.equal(params, order)
    worker.send(9, 2, 10, Message(row_of(10), SIZE, 0.5))
    theirs.sendall(Header(Kind.FETCH, 1, 0, 2, 10, 9).pack())
    theirs.sendall(Header(Kind.FETCH, 1, 0, 2, 11, 9).pack())  # which it has not: no answer
    theirs.sendall(Header(Kind.END, 1, 0).pack())
    assert worker.publish(None, params) is None
    theirs.settimeout(5)
    content = b""
    while len(content) < 2 * HEADER_BYTES + 32 + 4 * SIZE:
        content += theirs.recv(1 << 16)
    first, second = unpack(content[:HEADER_BYTES]), content[HEADER_BYTES + 32 :]
    assert (first.kind, first.worker, first.file, first.finite) == (Kind.DIGEST, 2, 10, True)
    assert unpack(second[:HEADER_BYTES]).kind is Kind.ROW
    assert second[HEADER_BYTES:] == bytes(bytes_of(row_of(10)))
    line.close()
    theirs.close()
