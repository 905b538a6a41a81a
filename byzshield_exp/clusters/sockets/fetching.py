"""Rows that the server requests: whom it asks, what arrived, what is late."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from torch import Tensor

from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.patience import Patience
from byzshield_exp.clusters.sockets.reader import Drain
from byzshield_exp.clusters.sockets.wire import DTYPES, Header, Kind, Rejected, expect
from byzshield_exp.clusters.transport import Fetched
from byzshield_exp.rows.digests import RowHasher, bytes_of


class Fetch:
    """A sink for a row that was asked for; it is hashed while it comes.

    Attributes:
        worker: that was asked.
        file: whose row.
        step: of the run.
        row: where the row is put.
        is_wanted: False: it goes nowhere, as it was given up.
        is_over: whether it has come whole, or never will.
        is_false: whether a message of another form came in its place.
        asked_at: seconds, of the hub's clock.
    """

    def __init__(self, row: Tensor, worker: int, file: int, step: int, is_finite: bool) -> None:
        self.worker, self.file, self.step, self.row = worker, file, step, row
        self.is_wanted, self.is_over, self.is_false = True, False, False
        self.asked_at = 0.0
        self._content = bytes_of(row)
        self._at = 0
        self._hasher = RowHasher(row.dtype, len(row), step, file, is_finite)

    def answer(self) -> Fetched:
        """Return what has become of it."""
        if self.is_over and self.is_wanted:
            return Fetched(self.file, self.worker, self.row, self._hasher.digest())
        return Fetched(self.file, self.worker, is_false=self.is_false)

    def check(self, header: Header) -> None:
        """Compare the header of a row with what was asked for.

        Raises:
            Rejected: naming what is wrong.
        """
        expect("worker", header.worker, self.worker)
        expect("file", header.file, self.file)
        expect("step", header.step, self.step)
        expect("length", header.length, len(self._content))
        expect("dtype", header.dtype, DTYPES[self.row.dtype])

    def room(self, most: int) -> memoryview:
        """Return the memory of the rest of the row; a row that was given up goes nowhere."""
        if not self.is_wanted:
            return Drain().room(most)
        return self._content[self._at : self._at + most].data

    def fill(self, count: int) -> None:
        """Hash what arrived."""
        if self.is_wanted:
            self._hasher.update(self._content[self._at : self._at + count])
            self._at += count

    def close(self) -> None:
        """Note that it has arrived whole."""
        self.is_over = True


class Fetching:
    """The requests of a run; each rank sends its rows in the order in which it was asked.

    Args of the constructor:
        hub: takes the requests.
        seats: who plays whom.
        patience: with each rank.
        rows: ``[f, d + s]``, where rows are put.
        run: its number.
    """

    def __init__(self, hub: Hub, seats: Seats, patience: Patience, rows: Tensor, run: int) -> None:
        self._hub, self._seats, self._patience = hub, seats, patience
        self._rows, self._run, self._step = rows, run, -1
        self._queues: dict[int, deque[Fetch]] = {rank: deque() for rank in hub.peers}
        self._of_file: dict[int, Fetch] = {}  # the last request of this step

    def begin(self, step: int) -> None:
        """Begin a step: nothing of the previous one is wanted."""
        self.keep_only(())
        self._step = step
        self._of_file.clear()

    def want(self, file: int, workers: Sequence[int], is_finite: bool) -> None:
        """Ask a quick, idle one of these workers for a row, if none of them was asked."""
        asked = self._of_file.pop(file, None)
        if asked is not None and asked.worker in workers and (asked.is_wanted or asked.is_false):
            self._of_file[file] = asked
            return
        if asked is not None:
            asked.is_wanted = False
        able = [
            (self._patience.slowness[rank], self.load(rank), place)
            for place, rank in enumerate(self._seats.rank_of[worker] for worker in workers)
            if self._hub.peers[rank].is_alive and rank not in self._patience.silent
        ]
        if able:
            self._ask(Fetch(self._rows[file], workers[min(able)[-1]], file, self._step, is_finite))

    def _ask(self, fetch: Fetch) -> None:
        peer = self._hub.peers[self._seats.rank_of[fetch.worker]]
        self._queues[peer.rank].append(fetch)
        self._of_file[fetch.file] = fetch
        header = Header(Kind.FETCH, self._run, 0, fetch.worker, fetch.file, self._step)
        self._hub.send(peer, header.pack())
        fetch.asked_at = self._hub.now()

    def is_asked(self, file: int) -> bool:
        """Whether anybody was asked for the row of a file in this step."""
        return file in self._of_file

    def is_waited_for(self, file: int) -> bool:
        """Whether the row of a file is still on its way."""
        fetch = self._of_file.get(file)
        return fetch is not None and fetch.is_wanted and not fetch.is_over

    def load(self, rank: int) -> int:
        """Count the rows that a rank has still to send."""
        queue = self._queues[rank]
        while queue and queue[0].is_over:
            queue.popleft()
        return len(queue)

    def accept(self, rank: int, header: Header) -> Fetch:
        """Return the next row that a rank was asked for.

        Raises:
            Rejected: if nothing, or something else, was asked of it; the row will not come then.
        """
        if not self.load(rank):
            raise Rejected("a row that nobody asked for")
        fetch = self._queues[rank][0]
        try:
            fetch.check(header)
        except Rejected:
            fetch.is_wanted, fetch.is_over, fetch.is_false = False, True, True
            raise
        return fetch

    def keep_only(self, files: Collection[int]) -> None:
        """Wait for the rows of these files only; others may still arrive."""
        for _, fetch in self._waits():
            fetch.is_wanted = fetch.file in files

    def give_up(self, rank: int) -> None:
        """Stop waiting for this rank's rows; they may still arrive."""
        for _, fetch in filter(lambda wait: wait[0] == rank, self._waits()):
            fetch.is_wanted = False

    def lose(self, rank: int) -> None:
        """Forget a rank whose connection is closed."""
        self.give_up(rank)
        self._queues[rank].clear()

    def is_done(self) -> bool:
        """Whether no row is waited for."""
        return next(self._waits(), None) is None

    def first_deadline(self) -> float:
        """Return when the first rank should have sent a row, by the hub's clock."""
        return min(fetch.asked_at + self._patience.of(rank) for rank, fetch in self._waits())

    def late_ranks(self) -> list[int]:
        """Return the ranks that should have sent a row by now."""
        now = self._hub.now()
        late = {
            rank for rank, fetch in self._waits() if now - fetch.asked_at >= self._patience.of(rank)
        }
        return sorted(late)

    def answer(self, file: int) -> Fetched:
        """Return what has become of the request for a file's row."""
        fetch = self._of_file.get(file)
        return Fetched(file) if fetch is None else fetch.answer()

    def _waits(self) -> Iterator[tuple[int, Fetch]]:
        """The rows that are waited for, each with the rank that sends it."""
        return (
            (rank, fetch)
            for rank, queue in self._queues.items()
            for fetch in queue
            if fetch.is_wanted and not fetch.is_over
        )
