"""Between peers over sockets: what the ends take, what they reject, who is let in."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from socket_table import mutations

from byzshield_exp.assignments import baseline
from byzshield_exp.clusters import Seats, TransportOptions
from byzshield_exp.clusters.bundle import pack
from byzshield_exp.clusters.sockets.channel import ServerChannel
from byzshield_exp.clusters.sockets.connecting import dial
from byzshield_exp.clusters.sockets.dues import Exchange, vectors_due
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.mesh import Contact, Mesh, connect, open_door
from byzshield_exp.clusters.sockets.wire import Header, Kind
from byzshield_exp.rows.digests import bytes_of

SEATS = Seats(baseline(4), 3)  # rank 1 plays peers 0 and 1, rank 2 peers 2 and 3
SIZE, STEP, RUN = 20, 5, 1
EXPECTED = [3, 2, 1, 0, -1]
POSTS = {0: b"zero", 1: b"one.", 2: b"two.", 3: b"tri."}
PAIRS = {(a, b): SIZE for a in (0, 1) for b in (2, 3)}  # what rank 1 sends to rank 2
EXCHANGE = Exchange(RUN, 7, STEP)


def vector_of(pair, shift=0.0):
    return torch.full((SIZE,), 10.0 * pair[0] + pair[1] + shift)


def message(header, content=b""):
    return replace(header, length=len(content)).pack() + content


class Meeting:
    """Rank 0 in a run of peers, whose connections' other ends the test holds."""

    def __init__(self, timeout=0.3):
        both = {rank: socket.socketpair() for rank in (1, 2)}
        self.ends = {rank: pair[1] for rank, pair in both.items()}
        self.hub = Hub({rank: pair[0] for rank, pair in both.items()})
        options = TransportOptions(worker_timeout=timeout, bucket=64, is_mesh=True)
        self.server = ServerChannel(3, self.hub, RUN).open(SEATS, options, torch.zeros(0, 1))
        self.server._rounds._last = Exchange(RUN, 6, STEP)  # all are connected

    def posts(self, rank):
        ids = [one for one in EXPECTED if SEATS.rank_of_id(one) == rank]
        cells = pack(POSTS, ids, 4).tobytes()
        return message(EXCHANGE.header(Kind.POSTS, rank), cells)

    def round(self):
        return self.server.round(STEP, {-1: b"here"}, EXPECTED, 4)

    def close(self):
        self.hub.close()
        for end in self.ends.values():
            end.close()


@pytest.fixture
def meeting():
    with contextlib.closing(Meeting()) as made:
        yield made


WRONG = {
    "step": lambda m: replace(m, step=STEP + 1),
    "number": lambda m: replace(m, file=8),
    "run": lambda m: replace(m, run=2),
    "sender": lambda m: replace(m, sender=2),
    "size": lambda m: replace(m, length=4),
    "giant": lambda m: replace(m, length=2**60),
    "place": lambda m: replace(m, worker=m.worker + 1),
    "bundle": lambda m: replace(m, kind=Kind.BUNDLE),
    "withheld": lambda m: replace(m, kind=Kind.WITHHELD, file=8),
    "digest": lambda m: replace(m, kind=Kind.DIGEST),
    "check": lambda m: replace(m, kind=Kind.CHECK),
    "hello": lambda m: replace(m, kind=Kind.HELLO),
    "order": lambda m: replace(m, kind=Kind.ORDER),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_who_talks_nonsense_in_a_round_is_dropped(meeting, change):
    header = change(EXCHANGE.header(Kind.POSTS, 1, 10))
    meeting.ends[1].sendall(header.pack() + bytes(10))
    meeting.ends[2].sendall(meeting.posts(2))
    assert meeting.round() == {3: b"tri.", 2: b"two.", -1: b"here"}
    assert [peer.rank for peer in meeting.hub.alive] == [2]
    assert "lost rank 1 (workers 0 to 1) for the rest of the run" in meeting.server.events[-1]


def test_a_post_of_an_earlier_round_is_skipped(meeting):
    old = replace(EXCHANGE, number=6).header(Kind.POSTS, 1)
    meeting.ends[1].sendall(message(old, bytes(3000)) + meeting.posts(1))
    meeting.ends[2].sendall(meeting.posts(2))
    assert meeting.round() == {3: b"tri.", 2: b"two.", 1: b"one.", 0: b"zero", -1: b"here"}
    assert meeting.server.events == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_stream_of_bytes_costs_another_rank_its_posts(data):
    with contextlib.closing(Meeting(timeout=0.02)) as meeting:
        stream = mutations(data.draw, meeting.posts(1))
        meeting.ends[1].sendall(stream)
        meeting.ends[2].sendall(meeting.posts(2))
        found = meeting.round()
        assert found.items() >= {3: b"tri.", 2: b"two.", -1: b"here"}.items()
        assert all(len(post) == 4 for post in found.values())


# Between workers.


class Swap:
    """Rank 2's end of a mesh; the test holds rank 1's."""

    def __init__(self):
        ours, self.end = socket.socketpair()
        self.mesh = Mesh({1: ours}, RUN, 64)

    def __call__(self, exchange, seconds=0.3, messages=None):
        came = {}
        dues = vectors_due(exchange, PAIRS, SEATS, 2, came)
        self.mesh.swap(exchange, messages or {}, dues, seconds)
        return came

    def close(self):
        self.mesh.close()
        self.end.close()


def sent(exchange, shift=0.0, withheld=()):
    """What rank 1 sends."""
    for at, pair in enumerate(PAIRS):
        if pair in withheld:
            yield message(exchange.header(Kind.WITHHELD, 1, at=at))
        else:
            content = bytes(bytes_of(vector_of(pair, shift)))
            yield message(exchange.header(Kind.VECTOR, 1, at=at), content)


@pytest.fixture
def swap():
    with contextlib.closing(Swap()) as made:
        yield made


def test_a_vector_that_comes_late_is_not_taken_for_the_next(swap):
    late = b"".join(sent(EXCHANGE))
    swap.end.sendall(late[:150])
    assert list(swap(EXCHANGE, 0.02)) == [(0, 2)]
    following = replace(EXCHANGE, number=8)
    swap.end.sendall(late[150:] + b"".join(sent(following, 0.5, withheld=[(0, 3)])))
    came = swap(following)
    assert list(came) == [(0, 2), (1, 2), (1, 3)]
    assert all(torch.equal(vector, vector_of(pair, 0.5)) for pair, vector in came.items())


def test_what_is_ahead_waits(swap):
    """A worker may be through with a swap while this one still waits for another one."""
    following = replace(EXCHANGE, number=8)
    swap.end.sendall(b"".join([*sent(EXCHANGE), *sent(following, 0.5)]))
    for exchange, shift in ((EXCHANGE, 0.0), (following, 0.5)):
        came = swap(exchange)
        assert all(torch.equal(vector, vector_of(pair, shift)) for pair, vector in came.items())
        assert list(came) == [*PAIRS]


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_who_sends_another_vector_loses_the_connection(swap, change):
    first, second, *_ = sent(EXCHANGE)
    header = change(EXCHANGE.header(Kind.VECTOR, 1, 4 * SIZE, at=1))
    swap.end.sendall(first + header.pack() + second)
    assert list(swap(EXCHANGE, 5.0)) == [(0, 2)]
    assert "lost the connection to rank 1: it sent" in swap.mesh.events[0]


def test_who_reads_no_vectors_loses_the_connection(swap):
    big = [(EXCHANGE.header(Kind.VECTOR, 2, 1 << 22), np.zeros(1 << 22, dtype=np.uint8))]
    assert swap(EXCHANGE, 0.02, {1: big}) == {}
    assert swap.mesh.events == []
    swap(replace(EXCHANGE, number=8), 5.0)
    assert "it has not read the vectors of the last swap" in swap.mesh.events[0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_stream_of_bytes_is_more_than_a_missing_vector(data):
    with contextlib.closing(Swap()) as swap:
        swap.end.sendall(mutations(data.draw, b"".join(sent(EXCHANGE))))
        came = swap(EXCHANGE, 0.01)
        assert came.keys() <= PAIRS.keys()
        assert all(vector.shape == (SIZE,) for vector in came.values())


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_between_two_workers_nobody_else_can_connect(host):
    tokens = {pair: bytes(pair) * 16 for pair in ((1, 2), (1, 3), (2, 3))}
    with contextlib.ExitStack() as stack:
        doors = {rank: stack.enter_context(open_door(host)) for rank in (1, 2, 3)}
        strangers = []
        for rank, token in ((2, tokens[1, 3]), (3, tokens[1, 2]), (3, b"t" * 32), (7, b"t" * 32)):
            strangers.append(stack.enter_context(dial(doors[1][1])))
            strangers[-1].sendall(message(Header(Kind.HELLO, RUN, rank), token))
        strangers.append(stack.enter_context(dial(doors[1][1])))
        strangers[-1].sendall(b"GET / HTTP/1.1" + bytes(100))

        def meet(rank):
            places = {
                other: Contact(doors[other][1], tokens.get(tuple(sorted((rank, other))), bytes(32)))
                for other in (1, 2, 3)
            }
            return connect(doors[rank][0], places, rank, RUN, 10.0)

        with ThreadPoolExecutor(3) as pool:
            met = dict(zip((1, 2, 3), pool.map(meet, (1, 2, 3)), strict=True))
        for rank, connections in met.items():
            assert sorted(connections) == [other for other in (1, 2, 3) if other != rank]
            for other, connection in connections.items():
                connection.sendall(bytes([rank]))
                assert met[other][rank].recv(1) == bytes([rank])
        for connections in met.values():
            for connection in connections.values():
                connection.close()


def test_an_address_that_is_none_is_a_missing_worker():
    with open_door("") as (door, _):
        for address in ("", "nowhere", "127.0.0.1:99999999", "/none\0", "\ufffd:1", "x" * 250):
            assert connect(door, {1: Contact(address, b"")}, 2, RUN, 0.0) == {}


def test_a_door_that_takes_nobody_is_a_missing_worker(tmp_path):
    """A full queue, at which a caller would wait for ever."""
    address = str(tmp_path / "deaf")
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket(socket.AF_UNIX))
        deaf.bind(address)
        deaf.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(address)
        door, _ = stack.enter_context(open_door(""))
        assert connect(door, {1: Contact(address, b"")}, 2, RUN, 0.0) == {}
