"""Joining: who is let in, and who is missing."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from byzshield_exp.clusters import (
    Rendezvous,
    join,
    meeting,
)
from byzshield_exp.clusters.sockets import connecting
from byzshield_exp.clusters.sockets.wire import (
    Header,
    Kind,
)
from byzshield_exp.errors import RunError


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


@pytest.mark.parametrize("kind", ["path", "port"])
def test_strangers_are_sent_away(tmp_path, kind):
    address = str(tmp_path / "server") if kind == "path" else f"127.0.0.1:{free_port()}"
    places = [Rendezvous(address, "s" * 64, rank, 3) for rank in range(3)]
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(join, places[0])
        strangers = []
        for said in (
            b"GET / HTTP/1.1" + bytes(100),
            Header(Kind.HELLO, 0, 1, length=64).pack() + b"t" * 64,
            Header(Kind.HELLO, 0, 7, length=64).pack() + b"s" * 64,  # no such rank
            Header(Kind.SHARE, 0, 1, length=64).pack() + b"s" * 64,
        ):
            strangers.append(dial(address))
            strangers[-1].sendall(said)
        first = join(places[1])
        strangers.append(dial(address))  # who says it is a rank that is there already
        strangers[-1].sendall(Header(Kind.HELLO, 0, 1, length=64).pack() + b"s" * 64)
        second = join(places[2])
        server = joining.result(30)
    for stranger in strangers:
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
        stranger.close()
    assert [peer.rank for peer in server.hub.alive] == [first.rank, second.rank]
    for each in (server, first, second):
        each.close()


def dial(address):
    while True:
        with contextlib.suppress(OSError):
            return connecting.dial(address)


def test_ranks_that_do_not_come_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(meeting, "JOIN_S", 0.2)
    with pytest.raises(RunError, match=r"ranks \[1, 2\] did not come within 0"):
        join(Rendezvous(str(tmp_path / "server"), "s" * 64, 0, 3))
    with pytest.raises(RunError, match="rank 1 does not reach the server"):
        join(Rendezvous(str(tmp_path / "nowhere"), "s" * 64, 1, 3))
