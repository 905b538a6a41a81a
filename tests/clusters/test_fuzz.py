"""Whatever a peer sends, it is rejected and costs nobody else."""

import contextlib
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from socket_table import MOLS, SIZE, Table, mutations, row_of

from byzshield_exp.clusters.sockets.wire import (
    Rejected,
)
from byzshield_exp.rows.digests import row_digest


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_stream_of_bytes_does_anything_but_being_rejected(fuzzed, data):
    feed_anything(fuzzed, data)


@pytest.mark.thorough
@settings(max_examples=2_000, deadline=None)
@given(st.data())
def test_no_stream_of_bytes_does_anything_but_being_rejected_at_length(fuzzed, data):
    feed_anything(fuzzed, data)


def feed_anything(fuzzed, data):
    """Rank 1 sends what it wants, in pieces; rank 2 is honest and loses nothing."""
    at = fuzzed[data.draw(st.booleans())]
    for peer in at.hub.peers.values():
        peer.reader._sink, peer.reader._got, peer.reader._left = None, 0, 0
    at.open_transport()
    server, (liar, honest) = at.server, [at.hub.peers[rank] for rank in (1, 2)]
    server.publish(4, torch.zeros(SIZE))
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
    at.opened = {1: [], 2: [], 3: []}
    at.listen()
    inbox = server._reception.inbox
    for worker in server.seats.workers_of(2):
        for file in MOLS.files_of_worker[worker].tolist():
            replica = inbox.replicas[file][server.seats.place_of[worker, file]]
            if at.reads_digests:
                assert replica == at.digests[file]
            else:
                assert torch.equal(replica, at.true_rows[file])
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
    files, rows = at.deliver(classes)
    assert files == list(classes)  # the honest rank has each of them
    assert all(torch.equal(row, at.true_rows[file]) for file, row in zip(files, rows, strict=True))
    assert {worker for worker, _ in at.caught} <= set(server.seats.workers_of(1))


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
        self.true_rows = [row_of(file) for file in range(25)]
        self.digests = [
            row_digest(row, 4, file, True) + b"\x01" for file, row in enumerate(self.true_rows)
        ]

        self.opened = {1: [], 2: [], 3: []}
        self.replies, self.chance = "nothing", random.Random(0)
        self.hub.pump = self.jump

    def listen(self):
        """Read what the server says, so that its sends never wait."""
        for rank in self.ends:
            self.opened[rank] += self.asked(rank)

    def jump(self, done, deadline):
        """The honest rank answers, the liar as it likes; then it is late."""
        self.listen()
        while not done() and any(self.opened.values()):
            asked, self.opened = self.opened, {1: [], 2: [], 3: []}
            for header in asked[2]:
                feed(self.hub.peers[2], self.answer_to(2, header, self.true_rows[header.file]), [])
            for header in asked[1]:
                with contextlib.suppress(Rejected):
                    feed(self.hub.peers[1], self.lie(header), [])
            self.listen()
        if not done():
            self.hub._paused -= max(0, deadline() - self.hub.now()) + 0.01  # the clock leaps
        return done()

    def lie(self, header):
        true = self.answer_to(1, header, self.true_rows[header.file])
        if self.replies == "true":
            return true
        if self.replies == "other":
            return self.answer_to(1, header, self.true_rows[header.file] + 1)
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
