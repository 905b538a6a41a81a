"""A server's end of the sockets with real connections, whose other ends the test holds."""

import contextlib
import socket
import threading

import torch
from hypothesis import strategies as st

from byzshield_exp.assignments import mols
from byzshield_exp.clusters import Seats, Statement, TransportOptions, deliver, in_first_rows
from byzshield_exp.clusters.sockets.channel import ServerChannel
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.wire import (
    DTYPES,
    HEADER_BYTES,
    Header,
    Kind,
    unpack,
)
from byzshield_exp.rows.digests import bytes_of, row_digest
from byzshield_exp.training.voting import Outcome
from byzshield_exp.votes import digest, majority, winners

SIZE = 50

MOLS = mols(15, 3)

FLOAT = DTYPES[torch.float32]
STATEMENT = Statement({}, {}, 0)


def row_of(file, size=SIZE):
    return torch.randn(size, generator=torch.Generator().manual_seed(file))


class Table:
    """A server's end with real connections, whose other ends the test holds."""

    def __init__(
        self, reads_digests=True, assignment=MOLS, ranks=3, timeout=0.5, size=SIZE, begins=True
    ):
        pairs = {rank: socket.socketpair() for rank in range(1, ranks + 1)}
        self.ends = {rank: pair[1] for rank, pair in pairs.items()}
        hub = Hub({rank: pair[0] for rank, pair in pairs.items()})
        self.rows = torch.zeros(assignment.num_files, size)
        self.channel = ServerChannel(ranks + 1, hub, run=1)
        self.hub, self.assignment, self.reads_digests = hub, assignment, reads_digests
        self.timeout, self.caught = timeout, set()
        self.open_transport()
        if begins:
            self.server.publish(4, torch.zeros(size))

    def open_transport(self):
        options = TransportOptions(self.reads_digests, self.timeout, bucket=64)
        seats = Seats(self.assignment, self.channel.world_size)
        self.server = self.channel.open(seats, options, self.rows)

    def close(self):
        self.hub.close()
        for end in self.ends.values():
            end.close()

    def messages(self, rank, row=row_of, step=4, run=1):
        """All that an honest rank sends for a step."""
        found = []
        for worker in self.server.seats.workers_of(rank):
            for file in self.assignment.files_of_worker[worker].tolist():
                found.append(self.replica(rank, worker, file, row(file), step, run))
        said = Statement({}, {}, 5).pack()
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

    def gather(self, step=4):
        return self.server.collect(step, STATEMENT, ())

    def deliver(self, classes):
        """The files and rows that a step of the protocol would get."""
        delivery = deliver(
            self.server, self.server._reception.inbox, classes, self.server._reception.step
        )
        self.caught = delivery.caught
        return list(delivery.rows), in_first_rows(delivery.rows, self.rows)

    def pump(self, seconds, done=lambda: False):
        deadline = self.hub.now() + seconds
        self.hub.pump(done, lambda: deadline)

    def win(self, inbox):
        """The winning classes, as a step of the protocol finds them."""
        labels = digest(inbox.replicas) if self.reads_digests else majority(inbox.replicas)
        finite = inbox.finite
        if finite is None:
            finite = torch.tensor([[row is not None for row in rows] for rows in inbox.replicas])
        places = winners(labels, finite, self.assignment.majority)
        return Outcome(self.assignment, labels, finite, places).classes()

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


def answer(at, rank, row=row_of):
    for header in at.asked(rank):
        at.send(rank, at.row(rank, header.worker, header.file, row(header.file)))


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
