"""The server's end of the sockets."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from torch import Tensor

from byzshield_exp.clusters.inbox import STATEMENT_BYTES, Inbox, Statement
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.dues import ANY_LENGTH
from byzshield_exp.clusters.sockets.fetching import Fetching
from byzshield_exp.clusters.sockets.hub import Hub, Peer
from byzshield_exp.clusters.sockets.patience import Patience
from byzshield_exp.clusters.sockets.reception import INTRODUCTION, Reception
from byzshield_exp.clusters.sockets.rounds import Rounds
from byzshield_exp.clusters.sockets.shelf import Shelf
from byzshield_exp.clusters.sockets.wire import Header, Kind
from byzshield_exp.clusters.transport import Fetched, TransportOptions
from byzshield_exp.errors import RunError
from byzshield_exp.rows.digests import bytes_of
from byzshield_exp.rows.message import Message

_START_S = 30.0  # at least, for the answer before the first step
_NEWS_S = 0.05  # between two looks at the rows that have come
_SLACK = 1 << 16  # bytes that a message may be longer than the longest before its sender is dropped


class SocketServer:
    """Rank 0 over sockets; whoever is silent, gone or talks nonsense does not stop it.

    See :class:`~byzshield_exp.clusters.transport.Transport` for the verbs.

    Raises:
        ValueError: if rank 0 plays workers.
    """

    rank = 0

    def __init__(
        self, seats: Seats, options: TransportOptions, rows: Tensor, hub: Hub, run: int
    ) -> None:
        if seats.server_plays:
            raise ValueError("over sockets the server plays no workers")
        self.seats = seats
        self._hub, self._run, self._options = hub, run, options
        self._shelf = Shelf(rows, options.bucket)
        self._patience = Patience(hub.peers, options.worker_timeout)
        self._fetching = Fetching(hub, seats, self._patience, rows, run)
        self._reception = Reception(
            hub, run, seats, options.reads_digests, self._shelf, self._fetching, options.is_mesh
        )
        self._rounds = Rounds(hub, self._reception.dues, seats, run, options.worker_timeout)
        self._ordered_at = 0.0
        self._bytes_before = self._bytes()
        self._has_ended = False
        longest = ANY_LENGTH if options.is_mesh else STATEMENT_BYTES + _SLACK
        hub.listen_to(self._reception, longest, options.bucket)
        if options.is_mesh:
            self._rounds.open()

    @property
    def events(self) -> list[str]:
        """Human-readable warnings; the reader clears them."""
        return self._reception.events

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent since the step began."""
        before, now = self._bytes_before, self._bytes()
        return now[0] - before[0], now[1] - before[1]

    def introduce(self, said: bytes) -> dict[int, bytes]:
        """Wait for what the others say.

        Raises:
            RunError: if no rank answers.
        """
        owed = self._reception.owed
        owed |= {peer.rank: INTRODUCTION for peer in self._hub.alive}
        self._ordered_at = self._hub.now()
        deadline = self._ordered_at + max(self._options.worker_timeout, _START_S)
        self._hub.pump(lambda: not owed, lambda: deadline)
        if not self._reception.introduced:
            raise RunError("no rank with workers answers before the first step")
        if self._options.is_mesh:
            for rank in sorted(owed):
                self.drop(rank, "it is silent before the first step")
        self._note_silence(sorted(owed))
        return self._hand_out_introductions()

    def drop(self, rank: int, reason: str) -> None:
        """Close the connection."""
        self._hub.lose(self._hub.peers[rank], reason)

    def share(self, content: Tensor) -> None:
        """Send the tensor to all."""
        self._send(self._hub.alive, Header(Kind.SHARE, self._run, 0), content)

    def publish(self, step: int | None, params: Tensor | None) -> int | None:
        """Order a step: among peers from all, else from those that have answered the last one."""
        if step is None:
            self.end()
            return None
        if self._reception.step < 0 and not self._options.is_mesh:  # rows may come from now on
            longest = self._shelf.matrix.shape[1] * self._shelf.matrix.element_size()
            self._hub.listen_to(self._reception, longest + _SLACK, self._options.bucket)
        self._readmit()
        self._shelf.clear()
        self._fetching.begin(step)
        self._reception.begin(step)
        if self._options.is_mesh:
            self._rounds.begin()
        self._bytes_before = self._bytes()
        ready = self._hub.alive if self._options.is_mesh else self._ask(step)
        self._send(ready, Header(Kind.ORDER, self._run, 0, step=step), params)
        self._ordered_at = self._hub.now()
        return step

    def send(self, step: int, worker: int, file: int, message: Message) -> None:
        """Do nothing: over sockets the server plays no workers."""

    def collect(self, step: int, statement: Statement, lying: Collection[int]) -> Inbox:
        """Wait until all have answered, for each rank no longer than the patience with it."""
        reception = self._reception
        self._hub.pump(lambda: not self._still_owing(step), lambda: self._deadline(step))
        self._note_silence(self._still_owing(step))
        self._readmit()
        reception.is_early = False
        inbox = reception.inbox
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
        """Wait for rows; most were requested as soon as a majority had sent the same digest."""
        for worker in refused:
            self._patience.distrust(self.seats.rank_of[worker])
        finite = self._reception.inbox.finite
        for file, workers in wanted.items():
            place = self.seats.place_of[workers[0], file]
            self._fetching.want(file, workers, finite is not None and bool(finite[file, place]))
        self._fetching.keep_only(wanted)
        while not self._fetching.is_done():
            # Not until all have come: a row that is no good is asked for again meanwhile.
            soon = self._hub.now() + _NEWS_S
            self._hub.pump(self._fetching.is_done, partial(self._next_look, soon))
            late = self._fetching.late_ranks()
            self._note_silence(late)
            for rank in late:
                self._fetching.give_up(rank)
            if any(not self._fetching.is_waited_for(file) for file in wanted):
                break
        over = [file for file in wanted if not self._fetching.is_waited_for(file)]
        return [self._fetching.answer(file) for file in over]

    def round(
        self, step: int, posts: Mapping[int, bytes], expected: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """Collect the posts and send all to each; who is late or talks nonsense is dropped."""
        return self._rounds.round(step, posts, expected, size)

    def swap(
        self,
        step: int,
        vectors: Mapping[tuple[int, int], Tensor],
        expected: Mapping[tuple[int, int], int],
    ) -> dict[tuple[int, int], Tensor]:
        """Wait for the vectors to rank 0, for half of the timeout."""
        return self._rounds.swap(step, expected)

    def _next_look(self, soon: float) -> float:
        return min(soon, self._fetching.first_deadline())

    def end(self) -> None:
        """Tell all that the run is over, once."""
        if self._has_ended:
            return
        self._has_ended = True
        self._send(self._hub.alive, Header(Kind.END, self._run, 0), None)
        owed = self._reception.owed
        self._hub.flush(peer for peer in self._hub.alive if peer.rank not in owed)

    def _send(self, peers: list[Peer], header: Header, content: Tensor | None) -> None:
        """Send a header and a copy of a tensor: a slow peer may read it when it has changed."""
        payload = b"" if content is None else bytes_of(content.cpu().clone()).data
        head = header.carrying(len(payload)).pack()
        for peer in peers:
            self._hub.send(peer, head, payload)

    def _still_owing(self, step: int) -> list[int]:
        """Ranks that have not answered; the patience learns when the others did."""
        while self._reception.answers_at:
            rank = next(iter(self._reception.answers_at))
            answered_at = self._reception.answers_at.pop(rank)
            self._patience.answered(rank, answered_at - self._ordered_at)
        return self._reception.owing(step)

    def _deadline(self, step: int) -> float:
        return self._ordered_at + max(map(self._patience.of, self._still_owing(step)))

    def _ask(self, step: int) -> list[Peer]:
        """Return the ranks that can begin a step, which they owe from now on."""
        ready = [peer for peer in self._hub.alive if self._is_ready(peer)]
        self._reception.owed |= {peer.rank: step for peer in ready}
        self._patience.ask(len(ready))
        return ready

    def _is_ready(self, peer: Peer) -> bool:
        """Whether a rank has done all that it was asked for, so that it can begin a step."""
        owes = peer.rank in self._reception.owed or self._fetching.load(peer.rank) or peer.outbox
        return not owes and peer.rank not in self._reception.introduced

    def _hand_out_introductions(self) -> dict[int, bytes]:
        said, self._reception.introduced = self._reception.introduced, {}
        return said

    def _note_silence(self, ranks: Sequence[int]) -> None:
        for rank in ranks:
            if self._patience.gave_up(rank):
                waited = self._hub.now() - self._ordered_at
                name = self.seats.name(rank)
                self._reception.say(f"{name} is silent for {waited:.3g} s: absent until it answers")

    def _readmit(self) -> None:
        """Ask the ranks again that were silent and have answered since."""
        for rank in sorted(self._patience.silent):
            is_alive = self._hub.peers[rank].is_alive
            if is_alive and rank not in self._reception.owed and not self._fetching.load(rank):
                self._patience.silent.discard(rank)
                name = self.seats.name(rank)
                self._reception.say(f"{name} answers again: it is back from the next step on")

    def _bytes(self) -> tuple[int, int]:
        peers = self._hub.peers.values()
        return sum(peer.bytes_in for peer in peers), sum(peer.bytes_out for peer in peers)
