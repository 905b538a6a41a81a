"""Rows that the server has asked for, in the order in which each rank was asked."""

from collections import deque
from collections.abc import Iterable, Iterator

from torch import Tensor

from byzshield_exp.clusters.sockets.reader import Drain
from byzshield_exp.clusters.sockets.wire import DTYPES, Header, Rejected, expect
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

    @property
    def has_come(self) -> bool:
        """Whether the row is here."""
        return self.is_over and self.is_wanted

    @property
    def digest(self) -> bytes:
        """Of the row that has come."""
        return self._hasher.digest()

    def room(self, most: int) -> memoryview:
        """The rest of the row; a row that is not wanted any more goes nowhere."""
        if not self.is_wanted:
            return Drain().room(most)
        return self._content[self._at : self._at + most].data

    def fill(self, count: int) -> None:
        """Hash what came."""
        if self.is_wanted:
            self._hasher.update(self._content[self._at : self._at + count])
            self._at += count

    def close(self) -> None:
        """It has come whole."""
        self.is_over = True


class Fetching:
    """What each rank still has to send, and who is asked for each file of this step.

    Args of the constructor:
        ranks: with workers.
    """

    def __init__(self, ranks: Iterable[int]) -> None:
        self._queues: dict[int, deque[Fetch]] = {rank: deque() for rank in ranks}
        self.of_file: dict[int, Fetch] = {}  # the last request of this step

    def begin(self) -> None:
        """A step begins: nothing of the one before is wanted."""
        for fetch in self._all():
            fetch.is_wanted = False
        self.of_file.clear()

    def ask(self, rank: int, fetch: Fetch) -> None:
        """Note that a rank is asked for a row."""
        self._queues[rank].append(fetch)
        self.of_file[fetch.file] = fetch

    def load(self, rank: int) -> int:
        """How many rows a rank has still to send."""
        queue = self._queues[rank]
        while queue and queue[0].is_over:
            queue.popleft()
        return len(queue)

    def accept(self, rank: int, header: Header) -> Fetch:
        """The next row that a rank was asked for.

        Raises:
            Rejected: if nothing, or something else, was asked of it; the row will not come then.
        """
        if not self.load(rank):
            raise Rejected("a row that nobody asked for")
        fetch = self._queues[rank][0]
        try:
            expect("worker", header.worker, fetch.worker)
            expect("file", header.file, fetch.file)
            expect("step", header.step, fetch.step)
            expect("length", header.length, fetch.row.numel() * fetch.row.element_size())
            expect("dtype", header.dtype, DTYPES[fetch.row.dtype])
        except Rejected:
            fetch.is_wanted, fetch.is_over, fetch.is_false = False, True, True
            raise
        return fetch

    def give_up(self, rank: int) -> None:
        """Do not wait for this rank's rows; they may still come."""
        for fetch in self._queues[rank]:
            if not fetch.is_over:
                fetch.is_wanted = False

    def lose(self, rank: int) -> None:
        """Nothing comes from this rank any more."""
        self.give_up(rank)
        self._queues[rank].clear()

    def waits(self) -> Iterator[tuple[int, Fetch]]:
        """The rows that are waited for, each with the rank that sends it."""
        return (
            (rank, fetch)
            for rank, queue in self._queues.items()
            for fetch in queue
            if fetch.is_wanted and not fetch.is_over
        )

    def _all(self) -> Iterator[Fetch]:
        return (fetch for queue in self._queues.values() for fetch in queue)
