"""The server's end of the sockets: who owes what, what came, and which rows to ask for."""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from byzshield_exp.clusters.inbox import Inbox, Statement
from byzshield_exp.clusters.introduction import MOST_INTRODUCTION
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.fetching import Fetch, Fetching
from byzshield_exp.clusters.sockets.hub import Hub, Peer
from byzshield_exp.clusters.sockets.patience import Patience
from byzshield_exp.clusters.sockets.reader import Collect, Drain, Sink
from byzshield_exp.clusters.sockets.shelf import Copy, Shelf
from byzshield_exp.clusters.sockets.wire import (
    DTYPES,
    FROM_WORKER,
    STATEMENT_BYTES,
    Header,
    Kind,
    Rejected,
    expect,
    unpack_statement,
)
from byzshield_exp.clusters.transport import Fetched, Options
from byzshield_exp.errors import RunError
from byzshield_exp.rows.digests import DIGEST_BYTES, bytes_of
from byzshield_exp.rows.message import Message

_TOLD = 5  # rejected messages of a rank that are told in full
_MOST_REJECTED = 1000  # messages of a rank, then it is dropped
_INTRODUCTION = -1  # owed before the first step
_START_S = 30.0  # at least, for the answer before the first step
_SLACK = 1 << 16  # bytes that a message may be longer than the longest before its sender is dropped


class SocketServer:
    """Rank 0 over sockets; whoever is silent, gone or talks nonsense does not stop it.

    See :class:`~byzshield_exp.clusters.transport.Transport` for the verbs.
    """

    rank = 0

    def __init__(self, seats: Seats, options: Options, rows: Tensor, hub: Hub, run: int) -> None:
        self.seats = seats
        self.events: list[str] = []
        self._hub, self._run, self._options = hub, run, options
        self._shelf = Shelf(rows, options.bucket)
        self._row_bytes = rows.shape[1] * rows.element_size()
        self._patience = Patience(hub.peers, options.worker_timeout)
        self._fetching = Fetching(hub.peers)
        self._inbox = Inbox.empty(seats.assignment, options.reads_digests)
        self._step = -1
        self._ordered_at = 0.0
        self._owed: dict[int, int] = {}  # by rank, the step whose statement has not come
        self._came: set[tuple[int, int]] = set()  # file and place
        self._introduced: dict[int, bytes] = {}  # and not handed out yet
        self._num_rejected: dict[int, int] = {}
        self._bytes_before = self._bytes()
        self._has_ended = False
        hub.listen_to(self, STATEMENT_BYTES + _SLACK, options.bucket)

    # The verbs.

    def introduce(self, said: bytes) -> dict[int, bytes]:
        """Wait for what the others say.

        Raises:
            RunError: if no rank answers.
        """
        self._owed = {peer.rank: _INTRODUCTION for peer in self._hub.alive}
        self._ordered_at = self._hub.now()
        deadline = self._ordered_at + max(self._options.worker_timeout, _START_S)
        self._hub.pump(lambda: not self._owed, lambda: deadline)
        if not self._introduced:
            raise RunError("no rank with workers answers before the first step")
        for rank in sorted(self._owed):
            self._note_silence(rank)
        return self._hand_out_introductions()

    def drop(self, rank: int, reason: str) -> None:
        """Close the connection."""
        self._hub.lose(self._hub.peers[rank], reason)

    def share(self, content: Tensor) -> None:
        """Send the tensor to all."""
        payload = bytes_of(content.cpu().clone()).data
        header = Header(Kind.SHARE, self._run, 0, length=len(payload)).pack()
        for peer in self._hub.alive:
            self._hub.send(peer, header, payload)

    def publish(self, step: int | None, params: Tensor | None) -> int | None:
        """Order the step from all that have answered the one before."""
        if step is None:
            self.end()
            return None
        if self._step < 0:  # rows may come from now on
            self._hub.listen_to(self, self._row_bytes + _SLACK, self._options.bucket)
        self._readmit()
        self._inbox = Inbox.empty(self.seats.assignment, self._options.reads_digests)
        self._shelf.clear()
        self._fetching.begin()
        self._came.clear()
        self._step, self._bytes_before = step, self._bytes()
        # A copy: a slow peer may still read the parameters of this step when they have changed.
        payload = b"" if params is None else bytes_of(params.cpu().clone()).data
        header = Header(Kind.ORDER, self._run, 0, step=step, length=len(payload)).pack()
        ready = [peer for peer in self._hub.alive if self._is_ready(peer)]
        self._patience.ask(len(ready))
        for peer in ready:
            self._owed[peer.rank] = step
            self._hub.send(peer, header, payload)
        self._ordered_at = self._hub.now()
        return step

    def send(self, step: int, worker: int, file: int, message: Message) -> None:
        """Nothing: the server plays no workers over sockets."""

    def collect(self, step: int, statement: Statement, lying: Collection[int]) -> Inbox:
        """Wait until all have answered, for each rank no longer than the patience with it."""
        self._hub.pump(
            lambda: not self._owing(step),
            lambda: self._ordered_at + max(self._patience.of(rank) for rank in self._owing(step)),
        )
        for rank in self._owing(step):
            self._note_silence(rank)
        self._readmit()
        inbox = self._inbox
        inbox.introductions = self._hand_out_introductions()
        inbox.absent = tuple(
            worker
            for rank in self._hub.peers
            if rank not in inbox.statements
            for worker in self.seats.workers_of(rank)
        )
        return inbox

    def fetch(
        self, wanted: Mapping[int, Sequence[int]], refused: Collection[int] = ()
    ) -> list[Fetched]:
        """Wait for the rows; many were asked for as soon as a majority had said the same."""
        for worker in refused:
            self._patience.distrust(self.seats.rank_of[worker])
        for file, workers in wanted.items():
            self._want(file, workers)
        for _, fetch in list(self._fetching.waits()):
            fetch.is_wanted = fetch.file in wanted
        while any(self._fetching.waits()):
            self._hub.pump(lambda: not any(self._fetching.waits()), self._first_deadline)
            for rank in self._late():
                self._note_silence(rank)
                self._fetching.give_up(rank)
        return [self._answer(file) for file in wanted]

    def end(self) -> None:
        """Tell all that the run is over, once."""
        if self._has_ended:
            return
        self._has_ended = True
        header = Header(Kind.END, self._run, 0).pack()
        for peer in self._hub.alive:
            self._hub.send(peer, header)
        self._hub.flush(peer for peer in self._hub.alive if peer.rank not in self._owed)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent since the step began."""
        before, now = self._bytes_before, self._bytes()
        return now[0] - before[0], now[1] - before[1]

    # What the hub tells.

    def accept(self, peer: Peer, header: Header) -> Sink:
        """Check a message against what this peer owes.

        Raises:
            Rejected: naming what is wrong.
        """
        if header.kind not in FROM_WORKER or header.kind is Kind.HELLO:
            raise Rejected(f"a message of kind {header.kind.name}")
        if header.run < self._run:
            return Drain()  # of a run that ended before all had answered
        expect("run", header.run, self._run)
        expect("sender", header.sender, peer.rank)
        if header.kind is Kind.CHECK:
            return self._accept_introduction(peer, header)
        if header.kind is Kind.ROW and self._options.reads_digests:
            return self._fetching.accept(peer.rank, header)
        owed = self._owed.get(peer.rank)
        if owed is None:
            raise Rejected(f"{header.kind.name} of step {header.step + 1}: it owes nothing")
        expect("step", header.step, owed)
        if header.kind is Kind.DONE:
            expect("length", header.length, STATEMENT_BYTES)
            return Collect(STATEMENT_BYTES, lambda said: self._store_statement(peer, owed, said))
        return self._accept_replica(peer, header)

    def reject(self, peer: Peer, rejected: Rejected) -> None:
        """Count it; the first ones of a rank are told."""
        self._inbox.rejected += 1
        count = self._num_rejected[peer.rank] = self._num_rejected.get(peer.rank, 0) + 1
        if count <= _TOLD:
            more = "; more of it are only counted" if count == _TOLD else ""
            self._say(f"rejected a message of {self.seats.name(peer.rank)}: {rejected}{more}")
        if count >= _MOST_REJECTED:
            self._hub.lose(peer, f"{count} of its messages were rejected")

    def lost(self, peer: Peer, reason: str) -> None:
        """Its workers are absent from now on."""
        self._owed.pop(peer.rank, None)
        self._say(f"lost {self.seats.name(peer.rank)} for the rest of the run: {reason}")
        self._fetching.lose(peer.rank)

    # One message.

    def _accept_introduction(self, peer: Peer, header: Header) -> Sink:
        if header.length > MOST_INTRODUCTION:
            raise Rejected(f"a CHECK of {header.length:,} bytes")
        if self._owed.get(peer.rank) != _INTRODUCTION:
            raise Rejected("a CHECK that nobody asked for")

        def store(said: bytes) -> None:
            del self._owed[peer.rank]
            self._introduced[peer.rank] = said

        return Collect(header.length, store)

    def _accept_replica(self, peer: Peer, header: Header) -> Sink:
        place = self.seats.place_of.get((header.worker, header.file))
        if header.worker not in self.seats.workers_of(peer.rank) or place is None:
            raise Rejected(f"worker={header.worker} file={header.file}: not one of its replicas")
        reads_digests = self._options.reads_digests
        expect("kind", header.kind, Kind.DIGEST if reads_digests else Kind.ROW)
        expect("length", header.length, DIGEST_BYTES if reads_digests else self._row_bytes)
        if header.kind is Kind.ROW:
            expect("dtype", header.dtype, DTYPES[self._shelf.matrix.dtype])
        if header.step != self._step:
            return Drain()  # it answers late
        if (header.file, place) in self._came:
            raise Rejected(f"worker={header.worker} file={header.file}: twice")
        self._came.add((header.file, place))
        if header.kind is Kind.DIGEST:
            return Collect(DIGEST_BYTES, lambda said: self._store_digest(header, place, said))
        return Copy(self._shelf, header.file, lambda row: self._store(header, place, row))

    def _store(self, header: Header, place: int, replica: Tensor | bytes) -> None:
        """Store a replica that has come whole, which may be after its step."""
        if header.step == self._step:
            self._inbox.put(header.file, place, replica, header.finite, header.loss)

    def _store_digest(self, header: Header, place: int, said: bytes) -> None:
        """Ask for the row as soon as a majority has said the same, whatever the others say."""
        self._store(header, place, said)
        if header.step != self._step or not header.finite:
            return
        of_file = self._inbox.replicas[header.file]
        same = [at for at, other in enumerate(of_file) if other == of_file[place]]
        if len(same) >= self.seats.assignment.majority:
            holders = self.seats.assignment.workers_of_file[header.file].tolist()
            if header.file not in self._fetching.of_file:
                self._want(header.file, [holders[at] for at in same])

    def _store_statement(self, peer: Peer, step: int, said: bytes) -> None:
        """A rank has answered; if that is late, it is back from now on."""
        del self._owed[peer.rank]
        if step == self._step:
            self._inbox.statements[peer.rank] = unpack_statement(said)
            self._patience.answered(peer.rank, self._hub.now() - self._ordered_at)

    # Rows by request.

    def _want(self, file: int, workers: Sequence[int]) -> None:
        """Ask a quick, idle one of these workers for a row, if none of them was asked."""
        asked = self._fetching.of_file.get(file)
        if asked is not None and asked.worker in workers and (asked.is_wanted or asked.is_false):
            return
        if asked is not None:
            asked.is_wanted = False
        self._fetching.of_file.pop(file, None)
        ranks = {place: self.seats.rank_of[worker] for place, worker in enumerate(workers)}
        able = [
            (self._patience.slowness[rank], self._fetching.load(rank), place)
            for place, rank in ranks.items()
            if self._hub.peers[rank].is_alive and rank not in self._patience.silent
        ]
        if not able:
            return
        worker = workers[min(able)[-1]]
        place = self.seats.place_of[worker, file]
        is_finite = self._inbox.finite is not None and bool(self._inbox.finite[file, place])
        fetch = Fetch(self._shelf.matrix[file], worker, file, self._step, is_finite)
        peer = self._hub.peers[self.seats.rank_of[worker]]
        self._fetching.ask(peer.rank, fetch)
        self._hub.send(peer, Header(Kind.FETCH, self._run, 0, worker, file, self._step).pack())
        fetch.asked_at = self._hub.now()

    def _answer(self, file: int) -> Fetched:
        fetch = self._fetching.of_file.get(file)
        if fetch is None:
            return Fetched(file)
        if fetch.has_come:
            return Fetched(file, fetch.worker, fetch.row, fetch.digest)
        return Fetched(file, fetch.worker, is_false=fetch.is_false)

    def _first_deadline(self) -> float:
        """When the first rank should have sent a row that it was asked for."""
        waits = self._fetching.waits()
        return min(fetch.asked_at + self._patience.of(rank) for rank, fetch in waits)

    def _late(self) -> set[int]:
        """Ranks that should have sent a row by now."""
        now = self._hub.now()
        return {
            rank
            for rank, fetch in self._fetching.waits()
            if now - fetch.asked_at >= self._patience.of(rank)
        }

    # Small things.

    def _is_ready(self, peer: Peer) -> bool:
        """Whether a rank has done all that it was asked for, so that it can begin a step."""
        owes = peer.rank in self._owed or self._fetching.load(peer.rank) or peer.outbox
        return not owes and peer.rank not in self._introduced

    def _owing(self, step: int) -> list[int]:
        return sorted(rank for rank, owed in self._owed.items() if owed == step)

    def _hand_out_introductions(self) -> dict[int, bytes]:
        said, self._introduced = self._introduced, {}
        return said

    def _note_silence(self, rank: int) -> None:
        if self._patience.gave_up(rank):
            waited = self._hub.now() - self._ordered_at
            name = self.seats.name(rank)
            self._say(f"{name} is silent for {waited:.3g} s: absent until it answers")

    def _readmit(self) -> None:
        """Ask the ranks again that were silent and have answered since."""
        for rank in sorted(self._patience.silent):
            is_alive = self._hub.peers[rank].is_alive
            if is_alive and rank not in self._owed and not self._fetching.load(rank):
                self._patience.silent.discard(rank)
                name = self.seats.name(rank)
                self._say(f"{name} answers again: it is back from the next step on")

    def _say(self, what: str) -> None:
        self.events.append(f"step {self._step + 1}: {what}")

    def _bytes(self) -> tuple[int, int]:
        peers = self._hub.peers.values()
        return sum(peer.bytes_in for peer in peers), sum(peer.bytes_out for peer in peers)
