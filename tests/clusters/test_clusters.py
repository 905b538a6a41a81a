"""The server's end of the wire: what it takes, what it rejects, and how it stores rows."""

import contextlib
import math
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp.assignments import baseline, mols
from byzshield_exp.clusters import (
    Cluster,
    Group,
    Rendezvous,
    Statement,
    cluster_of,
    group,
    join,
    server,
)
from byzshield_exp.clusters.fingerprint import bit_entries, host_name
from byzshield_exp.clusters.hub import Hub
from byzshield_exp.clusters.introduction import (
    MOST_BYTES,
    explain,
    pack_introduction,
    unpack_introduction,
)
from byzshield_exp.clusters.line import Line
from byzshield_exp.clusters.reader import Collect, Reader
from byzshield_exp.clusters.shelf import Copy, Shelf
from byzshield_exp.clusters.wire import (
    DTYPES,
    HEADER_BYTES,
    Header,
    Kind,
    Rejected,
    pack_statement,
    unpack,
    unpack_statement,
)
from byzshield_exp.errors import LostServer, RunError
from byzshield_exp.rows.digests import bytes_of, row_digest
from byzshield_exp.training.protocol import _classes
from byzshield_exp.votes import digest, majority, winners

SIZE = 50
MOLS = mols(15, 3)
FLOAT = DTYPES[torch.float32]


def row_of(file, size=SIZE):
    return torch.randn(size, generator=torch.Generator().manual_seed(file))


# Headers.


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
    assert unpack_statement(pack_statement(said)) == said


# The stream.


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
        Header(Kind.JOB, 1, 2, number, loss=0.0).carrying(len(content))
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


# Rows.


def receive(shelf, file, rows, splits):
    """Let several replicas come at once, some bytes at a time; the stored rows."""
    stored = {}
    copies = [Copy(shelf, file, partial_store(stored, i)) for i in range(len(rows))]
    streams = [memoryview(bytes(bytes_of(row))) for row in rows]
    at = [0] * len(rows)
    rest = ((i, 10**9) for i in range(len(rows)) for _ in range(len(streams[i])))
    for which, most in chain(splits, rest):
        which %= len(rows)
        left = len(streams[which]) - at[which]
        if left == 0:
            continue
        room = copies[which].room(min(most, left))
        assert 1 <= len(room) <= min(most, left)
        room[:] = streams[which][at[which] : at[which] + len(room)]
        copies[which].fill(len(room))
        at[which] += len(room)
        if at[which] == len(streams[which]):
            copies[which].close()
    return [stored[i] for i in range(len(rows))]


def partial_store(stored, i):
    return lambda row: stored.__setitem__(i, row)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_equal_replicas_are_stored_once_however_they_come(data):
    size = data.draw(st.integers(1, 40))
    versions = [torch.randn(size, generator=torch.Generator().manual_seed(0)) for _ in range(3)]
    for version in versions[1:]:
        bit = data.draw(st.integers(0, 32 * size - 1))
        version.view(torch.uint8)[bit // 8] ^= 1 << bit % 8
    chosen = data.draw(st.lists(st.sampled_from(versions), min_size=1, max_size=6))
    splits = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50)), max_size=80))
    shelf = Shelf(2, torch.zeros(size), bucket=data.draw(st.integers(1, 64)))
    for file in (0, 1):
        stored = receive(shelf, file, chosen, splits)
        assert all(
            torch.equal(a.view(torch.int32), b.view(torch.int32))
            for a, b in zip(stored, chosen, strict=True)
        )
        different = {bytes(bytes_of(row)) for row in chosen}
        assert len({row.data_ptr() for row in stored}) == len(different)


def test_a_row_that_colluders_send_for_all_files_is_stored_once():
    shelf, lie = Shelf(5, torch.zeros(SIZE), bucket=64), torch.ones(SIZE)
    for file in range(5):
        rows = [row_of(file), lie, row_of(file), lie]
        receive(shelf, file, rows, [(0, 10), (1, 20), (2, 100)])
    assert len(shelf.others) == 1


def test_what_is_left_of_the_step_before_changes_nothing():
    shelf = Shelf(1, torch.zeros(SIZE), bucket=16)
    late = Copy(shelf, 0, lambda row: pytest.fail("it is late"))
    late.room(8)[:] = bytes(8)
    late.fill(8)
    shelf.clear()
    (stored,) = receive(shelf, 0, [row_of(3)], [(0, 7)])
    for _ in range(SIZE * 4 - 8):
        late.room(1)[:] = b"x"
        late.fill(1)
    late.close()
    assert torch.equal(stored, row_of(3))


# A server with peers that are played by the test.


class Table:
    """A server's end with real connections, whose other ends the test holds."""

    def __init__(
        self, reads_digests=True, assignment=MOLS, ranks=3, timeout=0.5, size=SIZE, begins=True
    ):
        pairs = {rank: socket.socketpair() for rank in range(1, ranks + 1)}
        self.ends = {rank: pair[1] for rank, pair in pairs.items()}
        hub = Hub({rank: pair[0] for rank, pair in pairs.items()})
        place = Group(0, ranks + 1, hub=hub, run=1)
        self.server = cluster_of(place, assignment, reads_digests, timeout, 64)
        self.hub, self.assignment = hub, assignment
        self.reads_digests = reads_digests
        if begins:
            self.server.begin_step(torch.zeros(size), 4)

    def close(self):
        self.hub.close()
        for end in self.ends.values():
            end.close()

    def messages(self, rank, row=row_of, step=4, run=1):
        """All that an honest rank sends for a step."""
        found = []
        for worker in self.server.workers_of(rank):
            for file in self.assignment.files_of_worker[worker].tolist():
                found.append(self.replica(rank, worker, file, row(file), step, run))
        said = pack_statement(Statement({}, {}, 5))
        return [*found, Header(Kind.DONE, run, rank, step=step, length=len(said)).pack() + said]

    def replica(self, rank, worker, file, row, step=4, run=1):
        if self.reads_digests:
            said = row_digest(row, step, file, finite=True)
            header = Header(Kind.DIGEST, run, rank, worker, file, step, 32, FLOAT, True, 0.25)
            return header.pack() + said
        return self.row(rank, worker, file, row, step, run)

    def row(self, rank, worker, file, row, step=4, run=1):
        content = bytes(bytes_of(row))
        header = Header(Kind.ROW, run, rank, worker, file, step, len(content), FLOAT, False, 0.25)
        return header.pack() + content

    def send(self, rank, *messages):
        self.ends[rank].sendall(b"".join(messages))

    def asked(self, rank):
        """The fetches that have come at the other end."""
        self.ends[rank].setblocking(False)
        content = b""
        try:
            while more := self.ends[rank].recv(1 << 20):
                content += more
        except BlockingIOError:
            pass
        found = []
        while content:
            header = unpack(content[:HEADER_BYTES])
            content = content[HEADER_BYTES + header.length :]
            found += [header] if header.kind is Kind.FETCH else []
        return found

    def gather(self):
        return self.server.gather(4)

    def pump(self, seconds, done=lambda: False):
        deadline = self.hub.now() + seconds
        self.hub.pump(done, lambda: deadline)

    def win(self, inbox):
        """The winning classes, as a step of the protocol finds them."""
        labels = digest(inbox.replicas) if self.reads_digests else majority(inbox.replicas)
        finite = inbox.finite
        if finite is None:
            finite = torch.tensor([[row is not None for row in rows] for rows in inbox.replicas])
        return _classes(labels, winners(labels, finite, self.assignment.majority))

    @contextlib.contextmanager
    def answering(self, *ranks):
        """These ranks answer what they are asked."""
        over = threading.Event()

        def play():
            while not over.wait(0.005):
                for rank in ranks:
                    answer(self, rank)

        others = threading.Thread(target=play)
        others.start()
        try:
            yield
        finally:
            over.set()
            others.join()


@pytest.fixture
def table():
    tables = []

    def make(*args, **options):
        tables.append(Table(*args, **options))
        return tables[-1]

    yield make
    for made in tables:
        made.close()


def test_rows_of_all_arrive_in_their_places(table):
    at = table(reads_digests=False)
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    inbox = at.gather()
    for file in range(25):
        assert all(torch.equal(row, row_of(file)) for row in inbox.replicas[file])
        assert len({row.data_ptr() for row in inbox.replicas[file]}) == 1
    assert inbox.absent == ()
    assert inbox.rejected == 0
    assert float(inbox.losses.min()) == float(inbox.losses.max()) == 0.25
    files, rows = at.server.deliver({file: [0, 1, 2] for file in range(25) if file != 3})
    assert files == [file for file in range(25) if file != 3]
    assert all(torch.equal(row, row_of(file)) for file, row in zip(files, rows, strict=True))


def test_a_row_is_fetched_once_as_soon_as_a_majority_says_it(table):
    at = table()
    at.send(1, *at.messages(1))
    at.send(2, *at.messages(2))
    inbox = at.gather()  # rank 3 is silent
    assert inbox.absent == tuple(at.server.workers_of(3))
    assert "rank 3 (workers 10 to 14) is silent" in at.server.events[0]
    asked = [at.asked(1), at.asked(2)]
    files = [header.file for headers in asked for header in headers]
    both = [f for f in range(25) if sum(r is not None for r in inbox.replicas[f]) >= 2]
    assert sorted(files) == both  # nobody has to wait for the rest
    assert abs(len(asked[0]) - len(asked[1])) <= 1


def answer(at, rank, row=row_of):
    for header in at.asked(rank):
        at.send(rank, at.row(rank, header.worker, header.file, row(header.file)))


def test_a_row_unlike_its_digest_is_caught_and_fetched_from_the_next(table):
    at = table()
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    at.gather()
    answer(at, 1, row=lambda file: row_of(file) + 1)
    answer(at, 2)
    answer(at, 3)
    at.pump(0.1)
    answer(at, 2)
    answer(at, 3)
    files, rows = at.server.deliver({file: [0, 1, 2] for file in range(25)})
    assert files == list(range(25))
    assert all(torch.equal(row, row_of(file)) for file, row in zip(files, rows, strict=True))
    assert any(
        "sent another row for file" in event and "caught" in event for event in at.server.events
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_member_that_does_not_deliver_is_replaced(table, rank):
    at = table(timeout=0.3)
    others = [other for other in (1, 2, 3) if other != rank]
    for sender in (1, 2, 3):
        at.send(sender, *at.messages(sender))
    at.gather()
    for other in others:
        answer(at, other)
    first = at.asked(rank)[0]  # hangs in the middle of a row
    at.send(rank, at.row(rank, first.worker, first.file, row_of(first.file))[: HEADER_BYTES + 40])
    with at.answering(*others):
        files, rows = at.server.deliver({file: [0, 1, 2] for file in range(25)})
    assert files == list(range(25))
    assert all(torch.equal(row, row_of(file)) for file, row in zip(files, rows, strict=True))
    told = [event for event in at.server.events if "is silent" in event]
    assert len(told) == 1
    assert f"rank {rank} (workers " in told[0]


@pytest.mark.parametrize("liar", [1, 2, 3])
def test_a_liar_who_calls_honest_rows_not_finite_wins_nothing(table, liar):
    """Whether a row is finite belongs to the replica: the class of the honest is of one mind."""
    at = table(timeout=1.0)
    others = [rank for rank in (1, 2, 3) if rank != liar]
    for rank in others:
        at.send(rank, *at.messages(rank))
    for message in at.messages(liar)[:-1]:
        header, said = unpack(message[:HEADER_BYTES]), message[HEADER_BYTES:]
        at.send(liar, replace(header, finite=False).pack(), said)
    at.send(liar, at.messages(liar)[-1])
    inbox = at.gather()
    classes = at.win(inbox)
    assert list(classes) == list(range(25))
    with at.answering(*others):
        files, rows = at.server.deliver(classes)
    assert files == list(range(25))
    assert all(torch.equal(row, row_of(file)) for file, row in zip(files, rows, strict=True))
    assert at.server.caught == set()


def test_what_was_fetched_for_a_file_without_a_winner_is_forgotten(table):
    """What it was, true or not, changes nothing when it comes."""
    at = table(timeout=0.3)
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    at.gather()
    files, _ = at.server.deliver({})  # a vote of the user's own finds no winner
    assert files == []
    answer(at, 1, row=lambda file: row_of(file) + 1)
    for rank in (2, 3):
        answer(at, rank)
    at.pump(0.1)
    assert at.server.caught == set()
    assert at.server.events == []
    at.server.begin_step(torch.zeros(SIZE), 5)
    assert at.server._owed == {1: 5, 2: 5, 3: 5}


def test_a_lost_peer_costs_its_replicas_only(table):
    at = table(reads_digests=False)
    at.send(1, *at.messages(1))
    at.send(2, *at.messages(2))
    at.send(3, at.messages(3)[0][:30])
    at.ends[3].close()
    inbox = at.gather()
    assert inbox.absent == tuple(at.server.workers_of(3))
    assert any("lost rank 3 (workers 10 to 14) for the rest" in event for event in at.server.events)


def test_a_late_peer_is_back_at_the_step_after_its_answer(table):
    at = table(reads_digests=False, timeout=0.2)
    at.send(1, *at.messages(1))
    at.send(2, *at.messages(2))
    late = b"".join(at.messages(3))
    at.ends[3].sendall(late[:5000])
    at.gather()
    at.server.begin_step(torch.zeros(SIZE), 5)
    for rank in (1, 2):
        at.send(rank, *at.messages(rank, step=5))
    at.ends[3].sendall(late[5000:])
    inbox = at.server.gather(5)
    assert inbox.absent == tuple(at.server.workers_of(3))
    at.pump(0.1)
    assert any("answers again" in event for event in at.server.events)
    at.server.begin_step(torch.zeros(SIZE), 6)
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank, step=6))
    inbox = at.server.gather(6)
    assert inbox.absent == ()
    assert inbox.rejected == 0
    assert all(torch.equal(row, row_of(24)) for row in inbox.replicas[24])


def test_what_came_before_the_deadline_is_read_after_it(table):
    at = table(timeout=0.1)
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    time.sleep(1.5)  # the server was busy, or its machine
    assert at.gather().absent == ()
    assert at.server.events == []


def test_a_pause_of_the_server_is_nobodys_silence(table, monkeypatch):
    at = table(timeout=0.5)
    select = at.hub._selector.select

    def select_after_a_pause(seconds):
        monkeypatch.setattr(at.hub._selector, "select", select)
        time.sleep(2)  # as SIGSTOP does it
        return []

    monkeypatch.setattr(at.hub._selector, "select", select_after_a_pause)
    with ThreadPoolExecutor(1) as pool:
        inbox = pool.submit(at.gather)
        time.sleep(2.2)  # all are as late as the server
        for rank in (1, 2, 3):
            at.send(rank, *at.messages(rank))
        assert inbox.result(10).absent == ()


def test_a_peer_that_reads_nothing_is_sent_nothing_more(table):
    size = 1_000_000
    at = table(timeout=0.2, size=size)
    peer = at.hub.peers[3]
    waiting = sum(len(part) for part in peer.outbox)
    assert waiting > 0
    at.send(3, at.messages(3)[-1])  # it says that it is done with an order that it has not read
    for rank in (1, 2):
        threading.Thread(target=read_all, args=(at.ends[rank],), daemon=True).start()
        at.send(rank, at.messages(rank)[-1])
    at.gather()
    at.pump(5, lambda: not at.hub.peers[1].outbox and not at.hub.peers[2].outbox)
    assert at.server._owed == {}
    at.server.begin_step(torch.zeros(size), 5)
    assert at.server._owed == {1: 5, 2: 5}
    assert sum(len(part) for part in peer.outbox) <= waiting


def read_all(end):
    with contextlib.suppress(OSError):
        while end.recv(1 << 20):
            pass


HERE = {"host": "home", "data": "d", "capability": "AVX2", "torch": "2"}


def check(at, rank, said, entries=HERE):
    said += entries if isinstance(entries, bytes) else pack_introduction(entries)
    at.send(rank, Header(Kind.CHECK, 1, rank, length=len(said)).pack() + said)


@pytest.mark.parametrize("is_odd", [False, True])
def test_a_rank_that_is_late_before_the_first_step(table, monkeypatch, is_odd):
    monkeypatch.setattr(server, "_START_S", 0.1)
    at = table(timeout=0.1, begins=False)
    check(at, 1, b"a" * 32)
    check(at, 2, b"a" * 32)
    at.server.compare_digests(None, HERE)
    assert "rank 3 (workers 10 to 14) is silent for 0.1" in at.server.events[0]
    at.server.begin_step(torch.zeros(SIZE), 4)
    assert at.server._owed == {1: 4, 2: 4, 3: -1}
    for rank in (1, 2):
        at.send(rank, *at.messages(rank))
    inbox = at.gather()
    assert inbox.absent == tuple(at.server.workers_of(3))
    assert list(at.win(inbox)) == list(range(25))
    check(at, 3, (b"b" if is_odd else b"a") * 32, {**HERE, "host": "away", "torch": "3"})
    at.pump(1, lambda: 3 not in at.server._owed)
    at.server.begin_step(torch.zeros(SIZE), 5)
    if is_odd:
        assert "it computed other bits for file 0 than the rest" in at.server.events[-1]
        assert "rank 3 on host away: torch=3 (server: 2)" in at.server.events[-1]
    else:
        assert "answers again" in at.server.events[-1]
    assert (3 in at.server._owed) == (not is_odd)


def test_ranks_with_other_bits_are_named_before_the_first_step(table):
    at = table(begins=False)
    for rank, said in ((1, b"a"), (2, b"b"), (3, b"a")):
        check(at, rank, said * 32)
    with pytest.raises(RunError, match=r"ranks \[2\] computed other bits for file 0"):
        at.server.compare_digests(None, HERE)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({2: {"capability": "DEFAULT"}}, "rank 2 on host two: capability=DEFAULT (server: AVX2)"),
        ({1: {"torch": "3"}, 3: {"torch": "3"}}, "ranks 1, 3 on host one: torch=3 (server: 2)"),
        ({2: {"capability": ""}}, "rank 2 on host two: capability= (server: AVX2)"),
        ({}, "they are on two and state nothing else"),
    ],
)
def test_ranks_with_other_bits_say_on_which_host_and_why(table, others, told):
    """Where the odd rank is like the server, the others differ, and are told."""
    at = table(begins=False)
    for rank in (1, 2, 3):
        host = {"host": "two" if rank == 2 else "one"}
        check(at, rank, (b"b" if rank == 2 else b"a") * 32, HERE | host | others.get(rank, {}))
    with pytest.raises(RunError) as raised:
        at.server.compare_digests(None, HERE)
    assert "ranks [2] computed other bits for file 0 than the rest" in str(raised.value)
    assert told in str(raised.value)
    assert "vote=tolerant" in str(raised.value)


def test_ranks_with_other_data_are_named_although_their_bits_agree(table):
    at = table(begins=False)
    for rank in (1, 2, 3):
        check(at, rank, b"a" * 32, HERE | {"data": "e"})
    with pytest.raises(RunError, match=r"ranks \[1, 2, 3\] read other data") as told:
        at.server.compare_digests(None, HERE)
    assert "vote=tolerant" not in str(told.value)


@pytest.mark.parametrize(
    "said",
    [b"host=\x1b[2J", "host=h\u00f6st".encode(), b"host=a\r", b"x" * (MOST_BYTES + 1), b"\x00"],
)
def test_an_introduction_that_is_no_short_plain_text_is_rejected(table, monkeypatch, said):
    monkeypatch.setattr(server, "_START_S", 0.1)
    at = table(timeout=0.1, begins=False)
    check(at, 1, b"a" * 32, said)
    for rank in (2, 3):
        check(at, rank, b"a" * 32)
    at.server.compare_digests(None, HERE)
    assert "rejected a message of rank 1" in at.server.events[0]
    assert at.server._owed == {1: -1}


def test_a_check_without_a_whole_digest_is_rejected(table, monkeypatch):
    monkeypatch.setattr(server, "_START_S", 0.1)
    at = table(timeout=0.1, begins=False)
    for rank in (1, 2, 3):
        check(at, rank, b"a" * (31 if rank == 1 else 32), b"")
    at.server.compare_digests(None, {})
    assert "a CHECK of 31 bytes" in at.server.events[0]


@given(st.binary(max_size=MOST_BYTES + 10))
def test_any_bytes_are_an_introduction_or_rejected(content):
    with contextlib.suppress(Rejected):
        for name, value in unpack_introduction(content).items():
            assert (name + value).isascii()
            assert (name + value).isprintable()
            assert len(value) <= 64


@given(
    st.dictionaries(st.sampled_from(["cpu", "torch"]), st.text(max_size=100)),
    st.dictionaries(st.sampled_from(["cpu", "torch", "data"]), st.text("\x20=~a\n", max_size=100)),
)
def test_whatever_ranks_say_the_message_is_one_short_line(said, own):
    said, own = (unpack_introduction(pack_introduction(entries)) for entries in (said, own))
    message = explain(range(1, 30), dict.fromkeys(range(1, 40), said), own)
    assert message.isprintable()
    assert len(message) < 1200


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_first_words_do_anything_but_naming_their_sender(data):
    """Rank 1 says what it wants before the first step; the others say the same."""
    content = b"a" * 32 + pack_introduction(HERE)
    stream = Header(Kind.CHECK, 1, 1, length=len(content)).pack() + content
    said = mutations(data.draw, stream * data.draw(st.integers(1, 2)))
    before, server._START_S = server._START_S, 0.01
    at = Table(timeout=0.01, begins=False)
    at.send(1, said)
    try:
        for rank in (2, 3):
            check(at, rank, b"a" * 32)
        at.server.compare_digests(None, HERE)
        ended = "ranks [1] "
    except RunError as error:
        ended = str(error)
    finally:
        server._START_S = before
        at.close()
    assert ended.startswith("ranks [1] ")
    assert ended.isprintable()
    assert at.server._checks.keys() >= {2, 3}


def test_what_this_host_says_fits():
    entries = {"host": host_name(), **bit_entries("cpu")}
    assert {"cpu", "capability", "threads", "torch", "ATEN_CPU_CAPABILITY"} <= set(entries)
    assert unpack_introduction(pack_introduction(entries)) == entries


def test_somebody_has_to_answer_before_the_first_step(table, monkeypatch):
    monkeypatch.setattr(server, "_START_S", 0.1)
    with pytest.raises(RunError, match="no rank with workers answers before the first step"):
        table(timeout=0.1, begins=False).server.compare_digests(None, HERE)


WRONG = {
    "step": lambda m: replace(m, step=5),
    "an older step": lambda m: replace(m, step=3),
    "run": lambda m: replace(m, run=2),
    "sender": lambda m: replace(m, sender=2),
    "worker": lambda m: replace(m, worker=7),
    "no such worker": lambda m: replace(m, worker=2**31),
    "file": lambda m: replace(m, file=23),
    "no such file": lambda m: replace(m, file=2**32 - 1),
    "kind": lambda m: replace(m, kind=Kind.ORDER),
    "hello": lambda m: replace(m, kind=Kind.HELLO),
    "check": lambda m: replace(m, kind=Kind.CHECK),
    "dtype": lambda m: replace(m, dtype=DTYPES[torch.float64]),
    "another kind of replica": lambda m: replace(m, kind=Kind.DIGEST),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_message_is_rejected_counted_and_told(table, change):
    at = table(reads_digests=False)
    for rank in (2, 3):
        at.send(rank, *at.messages(rank))
    good = at.messages(1)
    header, content = unpack(good[0][:HEADER_BYTES]), good[0][HEADER_BYTES:]
    at.send(1, change(header).pack(), content, *good[1:])
    inbox = at.gather()
    assert inbox.rejected == 1
    assert [event for event in at.server.events if "rejected a message of rank 1" in event]
    missing = [row for rows in inbox.replicas for row in rows if row is None]
    assert len(missing) == 1
    assert inbox.absent == ()


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_a_row_of_another_size_is_rejected(table, size):
    at = table(reads_digests=False)
    good = at.messages(1)
    at.send(1, at.row(1, 0, 0, torch.ones(size)), *good[1:])
    at.pump(0.5, lambda: 1 not in at.server._owed)
    assert at.server._inbox.rejected == 1
    assert f"length={4 * size} instead of {4 * SIZE}" in at.server.events[0]


def test_a_replica_counts_once(table):
    at = table(reads_digests=False)
    good = at.messages(1)
    at.send(1, good[0], at.row(1, 0, 0, torch.ones(SIZE)), *good[1:])
    at.pump(0.5, lambda: 1 not in at.server._owed)
    assert "worker=0 file=0: twice" in at.server.events[0]
    assert torch.equal(at.server._inbox.replicas[0][0], row_of(0))


@pytest.mark.parametrize(
    "noise", [b"\x00" * 500, np.random.default_rng(0).bytes(5000), b"GET / HTTP/1.1\r\n" * 20]
)
def test_random_bytes_end_one_connection_only(table, noise):
    at = table(reads_digests=False)
    for rank in (1, 2):
        at.send(rank, *at.messages(rank))
    at.send(3, noise)
    inbox = at.gather()
    assert inbox.absent == tuple(at.server.workers_of(3))
    assert any("it sent bytes that are no message" in event for event in at.server.events)


def test_an_announced_giant_ends_its_connection(table):
    at = table(reads_digests=False)
    at.send(3, Header(Kind.ROW, 1, 3, 10, 0, 4, 2**60, FLOAT).pack())
    for rank in (1, 2):
        at.send(rank, *at.messages(rank))
    assert at.gather().absent == tuple(at.server.workers_of(3))
    assert any("a message of 1,152,921,504,606,846,976 bytes" in e for e in at.server.events)


def mutations(draw, stream):
    """A stream with some bytes changed, left out, doubled or put in."""
    content = bytearray(stream)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        much = draw(st.integers(1, 80))
        what = draw(st.sampled_from(["flip", "set", "cut", "double", "insert", "end"]))
        if what == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "set":
            content[at : at + much] = bytes([draw(st.sampled_from([0, 1, 127, 255]))]) * much
        elif what == "cut":
            del content[at : at + much]
        elif what == "double":
            content[at:at] = content[at : at + much]
        elif what == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=much))
        else:
            del content[at:]
    return bytes(content)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_stream_of_bytes_does_anything_but_being_rejected(fuzzed, data):
    feed_anything(fuzzed, data)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(st.data())
def test_no_stream_of_bytes_does_anything_but_being_rejected_at_length(fuzzed, data):
    feed_anything(fuzzed, data)


def feed_anything(fuzzed, data):
    """Rank 1 sends what it wants, in pieces; rank 2 is honest and loses nothing."""
    at = fuzzed[data.draw(st.booleans())]
    server, (liar, honest) = at.server, [at.hub.peers[rank] for rank in (1, 2)]
    server._owed.clear()
    server._silent.clear()
    server._slowness.update(dict.fromkeys(server._slowness, 0.0))
    server._num_rejected.clear()
    server.events.clear()
    for fetches in server._fetches.values():
        fetches.clear()
    for peer in at.hub.peers.values():
        peer.reader._sink, peer.reader._got, peer.reader._left = None, 0, 0
    server.begin_step(torch.zeros(SIZE), 4)
    stream = b"".join(at.said[1])
    if data.draw(st.booleans()):
        stream += at.row(1, 0, 0, row_of(0))
    chosen = data.draw(st.sampled_from(["mutated", "random", "shuffled"]))
    if chosen == "mutated":
        stream = mutations(data.draw, stream)
    elif chosen == "random":
        stream = data.draw(st.binary(max_size=400))
    else:
        stream = b"".join(data.draw(st.permutations(at.said[1])))
    pieces = data.draw(st.lists(st.integers(1, 3000), max_size=10))
    with contextlib.suppress(Rejected):  # then the hub closes the connection
        feed(liar, stream, pieces)
    feed(honest, b"".join(at.said[2]), [])
    at.open = {1: [], 2: [], 3: []}
    at.listen()
    inbox = server._inbox
    for worker in server.workers_of(2):
        for file in MOLS.files_of_worker[worker].tolist():
            replica = inbox.replicas[file][server._place_of[worker, file]]
            if at.reads_digests:
                assert replica == at.digests[file]
            else:
                assert torch.equal(replica, at.rows[file])
    for of_file in inbox.replicas:
        for replica in of_file:
            if isinstance(replica, bytes):
                assert len(replica) == 33
            elif replica is not None:
                assert replica.shape == (SIZE,)
    inbox.absent = ()
    classes = at.win(inbox)
    at.replies = data.draw(st.sampled_from(["true", "other", "nothing", "mutated"]))
    at.chance.seed(data.draw(st.integers(0, 1000)))
    files, rows = server.deliver(classes)
    assert files == list(classes)  # the honest rank has each of them
    assert all(torch.equal(row, at.rows[file]) for file, row in zip(files, rows, strict=True))
    assert {worker for worker, _ in server.caught} <= set(server.workers_of(1))


def feed(peer, content, pieces):
    content, at = memoryview(content), 0
    for piece in [*pieces, *[1 << 20] * len(content)]:
        if at == len(content):
            break
        room = peer.reader.room(min(piece, 256))
        count = min(len(room), len(content) - at)
        room[:count] = content[at : at + count]
        at += count
        peer.reader.fill(count)


class Fuzzed(Table):
    def __init__(self, reads_digests):
        super().__init__(reads_digests)
        self.said = {rank: self.messages(rank) for rank in (1, 2)}
        self.rows = [row_of(file) for file in range(25)]
        self.digests = [
            row_digest(row, 4, file, True) + b"\x01" for file, row in enumerate(self.rows)
        ]

        self.open = {1: [], 2: [], 3: []}
        self.replies, self.chance = "nothing", random.Random(0)
        self.hub.pump = self.jump

    def listen(self):
        """Read what the server says, so that its sends never wait."""
        for rank in self.ends:
            self.open[rank] += self.asked(rank)

    def jump(self, done, deadline):
        """The honest rank answers, the liar as it likes; then it is late."""
        self.listen()
        while not done() and any(self.open.values()):
            asked, self.open = self.open, {1: [], 2: [], 3: []}
            for header in asked[2]:
                feed(self.hub.peers[2], self.answer_to(2, header, self.rows[header.file]), [])
            for header in asked[1]:
                with contextlib.suppress(Rejected):
                    feed(self.hub.peers[1], self.lie(header), [])
            self.listen()
        if not done():
            self.hub._paused -= max(0, deadline() - self.hub.now()) + 0.01  # the clock leaps
        return done()

    def lie(self, header):
        true = self.answer_to(1, header, self.rows[header.file])
        if self.replies == "true":
            return true
        if self.replies == "other":
            return self.answer_to(1, header, self.rows[header.file] + 1)
        if self.replies == "nothing":
            return b""
        at = self.chance.randrange(len(true))
        junk = self.chance.randbytes(self.chance.randrange(80))
        return true[:at] + junk + true[at + self.chance.randrange(80) :]

    def answer_to(self, rank, header, row):
        return self.row(rank, header.worker, header.file, row)


@pytest.fixture(scope="module")
def fuzzed():
    tables = {reads: Fuzzed(reads) for reads in (False, True)}
    yield tables
    for table in tables.values():
        table.close()


# Workers.


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
    worker = cluster_of(Group(1, 4, line=line, run=1), MOLS, True, 1.0, 64)
    params = torch.zeros(SIZE)
    order = torch.arange(float(SIZE))
    payload = bytes(bytes_of(order))
    theirs.sendall(Header(Kind.ORDER, 1, 0, step=9, length=len(payload)).pack() + payload)
    assert worker.begin_step(params, None) == 9
    assert torch.equal(params, order)
    worker.put(9, 2, 10, row_of(10), 0.5)
    theirs.sendall(Header(Kind.FETCH, 1, 0, 2, 10, 9).pack())
    theirs.sendall(Header(Kind.FETCH, 1, 0, 2, 11, 9).pack())  # which it has not: no answer
    theirs.sendall(Header(Kind.END, 1, 0).pack())
    assert worker.begin_step(params, None) is None
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


# Joining.


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
            Header(Kind.JOB, 0, 1, length=64).pack() + b"s" * 64,
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
    server.run = 4
    server.tell("the job")
    assert [each.hear() for each in (first, second)] == ["the job"] * 2
    assert first.run == second.run == 4
    for each in (server, first, second):
        each.close()


def dial(address):
    while True:
        with contextlib.suppress(OSError):
            return group._dial(address)


def test_ranks_that_do_not_come_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(group, "JOIN_S", 0.2)
    with pytest.raises(RunError, match=r"ranks \[1, 2\] did not come within 0"):
        join(Rendezvous(str(tmp_path / "server"), "s" * 64, 0, 3))
    with pytest.raises(RunError, match="rank 1 does not reach the server"):
        join(Rendezvous(str(tmp_path / "nowhere"), "s" * 64, 1, 3))


# Places.


@pytest.mark.parametrize("world_size", [1, 2, 4, 7, 16])
def test_every_worker_lives_on_one_rank(world_size):
    cluster = Cluster(Group(0, world_size), MOLS, reads_digests=False)
    places = [cluster.workers_of(rank) for rank in range(world_size)]
    assert sorted(worker for place in places for worker in place) == list(range(15))
    if world_size > 1:
        assert len(places[0]) == 0
        sizes = [len(place) for place in places[1:]]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("assignment", "world_size", "needed", "count"),
    [(MOLS, 16, 2, 1), (MOLS, 16, 1, 2), (MOLS, 4, 2, 1), (MOLS, 3, 2, 0), (MOLS, 2, 2, 0),
     (baseline(15), 16, 1, 0)],
)  # fmt: skip
def test_how_many_ranks_may_be_lost(assignment, world_size, needed, count):
    cluster = Cluster(Group(0, world_size), assignment, reads_digests=False)
    assert cluster.bearable(needed) == count


def test_the_simulation_moves_winners_without_mixing_them_up():
    table = torch.arange(100.0).view(25, 4)
    true = table.clone()
    cluster = Cluster(Group(), MOLS, reads_digests=False)
    cluster.keep_rows_in(table)
    cluster.begin_step(torch.zeros(4), 0)
    workers = MOLS.workers_of_file.tolist()
    for file in range(25):
        copied = {3: 4, 4: 3}.get(file, file)  # two lies are other files' true rows
        for worker in workers[file]:
            cluster.put(0, worker, file, table[copied], 0.0)
    files, rows = cluster.deliver({file: [0, 1, 2] for file in range(25) if file != 1})
    expected = true.clone()
    expected[[3, 4]] = true[[4, 3]]
    assert torch.equal(rows, expected[files])


def test_a_peer_that_is_silent_again_and_again_is_waited_for_less(table):
    at, waits = table(reads_digests=False, timeout=0.4), []
    for step in range(4, 12):
        if step > 4:
            at.server.begin_step(torch.zeros(SIZE), step)
        for rank in (1, 2):
            at.send(rank, *at.messages(rank, step=step))
        began = time.monotonic()
        inbox = at.server.gather(step)
        waits.append(time.monotonic() - began)
        assert inbox.absent == tuple(at.server.workers_of(3))
        if step % 2 == 0:  # too late; at every second step nothing is expected of it
            at.send(3, *at.messages(3, step=step))
            at.pump(1.0, lambda: 3 not in at.server._owed)
    assert waits[2] < waits[0]


def test_patience_has_an_end_and_comes_back(table):
    at = table(reads_digests=False, timeout=32.0)
    cluster = at.server
    for _ in range(2000):
        cluster._silent.clear()
        cluster._tell_silent(3)
    assert cluster._patience(3) == 32.0  # until half have answered nobody is late
    cluster._half_took = 0.1
    assert cluster._patience(3) == 1.0
    assert cluster._patience(2) == 32.0
    cluster._half_took = 5.0
    assert cluster._patience(3) == 15.0  # others needed a third of that
    cluster._half_took = 20.0
    assert cluster._patience(3) == 32.0
    cluster._silent.clear()
    cluster._owed.clear()
    for step in range(5, 106):
        cluster.begin_step(torch.zeros(SIZE), step)
        for rank in (1, 2, 3):
            at.send(rank, *at.messages(rank, step=step))
        assert cluster.gather(step).absent == ()
        if step == 25:
            assert 1.0 < cluster._patience(3) < 32.0
    assert cluster._slowness[3] == 0
