"""What ranks owe the server and what arrived: each message is checked before it is read."""

from torch import Tensor

from byzshield_exp.clusters.inbox import STATEMENT_BYTES, Inbox, Statement
from byzshield_exp.clusters.introduction import MOST_INTRODUCTION
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.dues import Dues
from byzshield_exp.clusters.sockets.fetching import Fetching
from byzshield_exp.clusters.sockets.hub import Hub, Peer
from byzshield_exp.clusters.sockets.reader import Collect, Drain, Sink
from byzshield_exp.clusters.sockets.shelf import Copy, Shelf
from byzshield_exp.clusters.sockets.wire import (
    BETWEEN_PEERS,
    DTYPES,
    FROM_WORKER,
    Header,
    Kind,
    Rejected,
    expect,
)
from byzshield_exp.rows.digests import DIGEST_BYTES

_TOLD = 5  # rejected messages of a rank that are told in full
_MOST_REJECTED = 1000  # messages of a rank, then it is dropped
INTRODUCTION = -1  # owed before the first step


class Reception:
    """Takes the messages of a run; see :class:`~byzshield_exp.clusters.sockets.hub.Handler`.

    Args of the constructor:
        hub: whose messages it takes.
        run: its number.
        seats: who plays whom.
        reads_digests: whether the vote is on digests of rows.
        shelf: stores rows.
        fetching: the rows that are asked for.
        is_mesh: whether it is a run of peers, where a rejected message is the end of its sender.

    Attributes:
        step: that is open.
        inbox: what has come for it.
        owed: by rank, the step whose statement has not come.
        introduced: by rank, introductions that nobody has looked at.
        answers_at: by rank, when its statement of this step came, by the hub's clock.
        events: human-readable warnings.
        dues: what is due between peers.
        is_early: whether rows are requested as soon as a majority has sent their digest; once the
            winners are delivered, only those are asked that were not asked before.
    """

    def __init__(
        self,
        hub: Hub,
        run: int,
        seats: Seats,
        reads_digests: bool,
        shelf: Shelf,
        fetching: Fetching,
        is_mesh: bool = False,
    ) -> None:
        self._hub, self._run, self._seats = hub, run, seats
        self._reads_digests, self._shelf, self._fetching = reads_digests, shelf, fetching
        self._row_bytes = shelf.matrix.shape[1] * shelf.matrix.element_size()
        self.step = -1
        self.inbox = Inbox.empty(seats.assignment, reads_digests)
        self.owed: dict[int, int] = {}
        self.introduced: dict[int, bytes] = {}
        self.answers_at: dict[int, float] = {}
        self.events: list[str] = []
        self.dues = Dues(hub, run)
        self.is_early = True
        self._came: set[tuple[int, int]] = set()  # file and place
        self._num_rejected: dict[int, int] = {}
        self._most_rejected = 1 if is_mesh else _MOST_REJECTED
        self._from_worker = FROM_WORKER if is_mesh else FROM_WORKER - BETWEEN_PEERS

    def begin(self, step: int) -> None:
        """Open a step."""
        self.step = step
        self.inbox = Inbox.empty(self._seats.assignment, self._reads_digests)
        self.is_early = True
        self._came.clear()
        self.answers_at.clear()

    def owing(self, step: int) -> list[int]:
        """Return the ranks whose statement of a step has not arrived."""
        return sorted(rank for rank, owed in self.owed.items() if owed == step)

    def say(self, what: str) -> None:
        """Add a warning."""
        self.events.append(f"step {self.step + 1}: {what}")

    # What the hub tells.

    def accept(self, peer: Peer, header: Header) -> Sink:
        """Check a message against what this peer owes.

        Raises:
            Rejected: naming what is wrong.
        """
        if header.kind not in self._from_worker or header.kind is Kind.HELLO:
            raise Rejected(f"a message of kind {header.kind.name}")
        if header.kind in BETWEEN_PEERS:
            return self.dues.accept(peer, header)
        if header.run < self._run:
            return Drain()  # of a run that ended before all had answered
        expect("run", header.run, self._run)
        expect("sender", header.sender, peer.rank)
        if header.kind is Kind.CHECK:
            return self._accept_introduction(peer, header)
        if header.kind is Kind.ROW and self._reads_digests:
            return self._fetching.accept(peer.rank, header)
        owed = self.owed.get(peer.rank)
        if owed is None:
            raise Rejected(f"{header.kind.name} of step {header.step + 1}: it owes nothing")
        expect("step", header.step, owed)
        if header.kind is Kind.DONE:
            expect("length", header.length, STATEMENT_BYTES)
            return Collect(STATEMENT_BYTES, lambda said: self._store_statement(peer, said))
        return self._accept_replica(peer, header)

    def reject(self, peer: Peer, rejected: Rejected) -> None:
        """Count a rejected message; warn of the first ones of a rank."""
        self.inbox.rejected += 1
        count = self._num_rejected[peer.rank] = self._num_rejected.get(peer.rank, 0) + 1
        if count <= _TOLD:
            more = "; more of it are only counted" if count == _TOLD else ""
            self.say(f"rejected a message of {self._seats.name(peer.rank)}: {rejected}{more}")
        if count >= self._most_rejected:
            self._hub.lose(peer, f"{count} of its messages were rejected")

    def lost(self, peer: Peer, reason: str) -> None:
        """Note that a rank's workers are absent from now on."""
        self.owed.pop(peer.rank, None)
        self.dues.lose(peer.rank)
        self.say(f"lost {self._seats.name(peer.rank)} for the rest of the run: {reason}")
        self._fetching.lose(peer.rank)

    # One message.

    def _accept_introduction(self, peer: Peer, header: Header) -> Sink:
        if header.length > MOST_INTRODUCTION:
            raise Rejected(f"a CHECK of {header.length:,} bytes")
        if self.owed.get(peer.rank) != INTRODUCTION:
            raise Rejected("a CHECK that nobody asked for")

        def store(said: bytes) -> None:
            del self.owed[peer.rank]
            self.introduced[peer.rank] = said

        return Collect(header.length, store)

    def _accept_replica(self, peer: Peer, header: Header) -> Sink:
        place = self._seats.place_of.get((header.worker, header.file))
        if header.worker not in self._seats.workers_of(peer.rank) or place is None:
            raise Rejected(f"worker={header.worker} file={header.file}: not one of its replicas")
        expect("kind", header.kind, Kind.DIGEST if self._reads_digests else Kind.ROW)
        expect("length", header.length, DIGEST_BYTES if self._reads_digests else self._row_bytes)
        if header.kind is Kind.ROW:
            expect("dtype", header.dtype, DTYPES[self._shelf.matrix.dtype])
        if header.step != self.step:
            return Drain()  # it answers late
        if (header.file, place) in self._came:
            raise Rejected(f"worker={header.worker} file={header.file}: twice")
        self._came.add((header.file, place))
        if header.kind is Kind.DIGEST:
            return Collect(DIGEST_BYTES, lambda said: self._store_digest(header, place, said))
        return Copy(self._shelf, header.file, lambda row: self._store(header, place, row))

    def _store(self, header: Header, place: int, replica: Tensor | bytes) -> None:
        """Store a replica that has arrived whole, unless its step is over."""
        if header.step == self.step:
            self.inbox.put(header.file, place, replica, header.finite, header.loss)

    def _store_digest(self, header: Header, place: int, said: bytes) -> None:
        """Store a digest; request the row as soon as a majority has sent the same one."""
        self._store(header, place, said)
        file, assignment = header.file, self._seats.assignment
        is_open = header.step == self.step and self.is_early
        if not is_open or not header.finite or self._fetching.is_asked(file):
            return
        of_file = self.inbox.replicas[file]
        same = [at for at, other in enumerate(of_file) if other == of_file[place]]
        if len(same) >= assignment.majority:
            holders = assignment.workers_of_file[file].tolist()
            self._fetching.want(file, [holders[at] for at in same], header.finite)

    def _store_statement(self, peer: Peer, said: bytes) -> None:
        """Note that a rank has answered, in time or late."""
        statement = Statement.unpack(said)
        if self.owed.pop(peer.rank) == self.step:
            self.inbox.statements[peer.rank] = statement
            self.answers_at[peer.rank] = self._hub.now()
