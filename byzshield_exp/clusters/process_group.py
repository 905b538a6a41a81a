"""Rows over torch.distributed: gloo, or NCCL between GPUs.

Every rank calls the same operations in the same order, and both ends know the size of a message
before it is sent. So a rank that is lost, silent or out of step ends the run: only sockets outlive
such processes. What a liar can do here is to send other values.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp

from byzshield_exp.clusters.inbox import Inbox, Statement
from byzshield_exp.clusters.introduction import MOST_INTRODUCTION
from byzshield_exp.clusters.peer_group import PeerGroup
from byzshield_exp.clusters.received import RankReport, Received, as_tensor
from byzshield_exp.clusters.said import HostCopies, Said
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.transport import Fetched, TransportOptions
from byzshield_exp.clusters.vigil import Vigil, Waitable, all_of, finish, start
from byzshield_exp.errors import LostRank, LostServer, RunError, Stopped
from byzshield_exp.rows.digests import row_digest
from byzshield_exp.rows.finite import is_finite
from byzshield_exp.rows.message import Message

_ROW, _REPORT, _INTRODUCTION = range(3)  # tags; NCCL, which has none, carries rows only
_START_S = 30.0  # at least, for the answers before the first step
_HASHERS = 2  # threads; the ranks with workers wait meanwhile
_END_S = 10.0  # at most, to tell other ranks that the run is over
_NOBODY = _OVER = -1  # in place of a worker, of a step
_INTRODUCTION_BYTES = 8 + MOST_INTRODUCTION

Order = list[tuple[int, int]]  # worker and file, as they are sent


class ProcessGroup:
    """One rank's end of a run over torch.distributed's default group.

    See :class:`~byzshield_exp.clusters.transport.Transport` for the verbs.

    Args of the constructor:
        seats: who plays whom.
        options: how the run uses it.
        rows: ``[f, d + s]``, where rank 0 stores rows; they travel from and to this device.
        vigil: waits for operations.
        run: its number, equal on all ranks.
    """

    def __init__(
        self, seats: Seats, options: TransportOptions, rows: Tensor, vigil: Vigil, run: int = 0
    ) -> None:
        self.seats, self.rank, self._run = seats, vigil.rank, run
        self.events: list[str] = []
        self._reads_digests, self._rows, self._vigil = options.reads_digests, rows, vigil
        vigil.seconds, vigil.name = options.worker_timeout, seats.name
        vigil.is_needed = self.rank > 0
        self._peers = [rank for rank in seats.players if rank > 0] if self.rank == 0 else []
        self._received = Received(rows, () if self._reads_digests else self._peers)
        self._said, self._copies = Said(), HostCopies()
        self._own: list[tuple[int, int, Message]] = []  # worker, file; sent in this step
        self._sending: list[Waitable] = []
        self._distrusted: set[int] = set()  # ranks that sent another row than they had said
        self._inbox = Inbox.empty(seats.assignment, self._reads_digests)
        self._is_mesh = options.is_mesh
        self._peer_group = PeerGroup(seats, self.rank, rows.device, self._do)
        self._bytes_in = self._bytes_out = 0
        # Run, step, and by file the worker whose row rank 0 requests; none: the step begins.
        self._word = torch.full((2 + seats.assignment.num_files,), _NOBODY)
        self._word_came = False  # where requests were expected: it begins the next step
        self._others_await_word = not self._peers
        self._has_ended = False

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent since the step began."""
        between = self._peer_group
        return self._bytes_in + between.bytes_in, self._bytes_out + between.bytes_out

    def introduce(self, said: bytes) -> dict[int, bytes] | None:
        """Send it to rank 0.

        Raises:
            LostRank: on rank 0, if another one does not answer.
        """
        plays = len(self.seats.workers_of(self.rank)) > 0
        if self.rank > 0:
            if plays:
                packed = as_tensor(len(said).to_bytes(8, "little") + said, _INTRODUCTION_BYTES)
                self._do(lambda: [dist.isend(packed, 0, tag=_INTRODUCTION)])
            return None
        came = {rank: as_tensor(b"", _INTRODUCTION_BYTES) for rank in self._peers}
        self._do(
            lambda: [dist.irecv(here, rank, tag=_INTRODUCTION) for rank, here in came.items()],
            max(self._vigil.seconds, _START_S),
        )
        self._others_await_word = True
        found = {rank: here.numpy().tobytes() for rank, here in came.items()}
        found = {rank: it[8 : 8 + int.from_bytes(it[:8], "little")] for rank, it in found.items()}
        return ({0: said} if plays else {}) | found

    def drop(self, rank: int, reason: str) -> None:
        """End the run: it cannot go on without a rank.

        Raises:
            LostRank: always.
        """
        raise LostRank(f"{self.seats.name(rank)} cannot take part: {reason}")

    def share(self, content: Tensor) -> None:
        """Broadcast the tensor."""
        self._broadcast(content, max(self._vigil.seconds, _START_S))

    def publish(self, step: int | None, params: Tensor | None) -> int | None:
        """Broadcast the number of the step, and the parameters."""
        if self.rank == 0 and step is None:
            with suppress(LostRank):  # all steps are done
                self.end()
            return None
        self._begin()
        if self.rank == 0:
            self._send_word(step or 0, {})
        elif not self._word_came:
            self._hear_word()
        self._word_came = False
        number = int(self._word[1])
        if number == _OVER:
            self._has_ended, self._vigil.is_needed = True, False
            return None
        if params is not None:
            self._broadcast(params)
        self._others_await_word = self._is_mesh
        return number

    def send(self, step: int, worker: int, file: int, message: Message) -> None:
        """Send a row to rank 0; with digests, keep it until it is asked for.

        Raises:
            RunError: if it has another type or size than rank 0 expects.
        """
        self._own.append((worker, file, message))
        row = self._that_travels(file, message.joined).contiguous()
        if row.dtype != self._rows.dtype or len(row) != self._rows.shape[1]:
            raise RunError(
                f"step {step + 1}: worker {worker} would send {len(row)} numbers of {row.dtype} "
                f"instead of {self._rows.shape[1]} of {self._rows.dtype}"
            )
        if self._reads_digests:
            self._said.keep(worker, file, row, step)
        elif self.rank > 0:
            with self._vigil.blaming():
                self._sending += start([P2POp(dist.isend, row, 0, tag=_ROW)])
            self._bytes_out += row.nbytes

    def collect(self, step: int, statement: Statement, lying: Collection[int]) -> Inbox | None:
        """Report what was sent; on rank 0, receive all rows and reports.

        Raises:
            LostRank: on rank 0, naming who is gone or late.
        """
        if self.rank > 0:
            report = self._report(statement)
            self._do(lambda: [*self._sending, dist.isend(report.content, 0, tag=_REPORT)])
            self._bytes_out += report.content.nbytes
            return None
        orders = {rank: self.seats.order_of(rank, lying) for rank in self._peers}
        reports = {rank: RankReport(len(order)) for rank, order in orders.items()}
        self._vigil.patiently(lambda: self._receive(orders, reports))
        for rank, report in reports.items():
            self._read(rank, orders[rank], report)
        for worker, file, message in self._own:
            self._put(worker, file, message)
        self._inbox.statements[0] = statement
        self._others_await_word = True
        return self._inbox

    def fetch(
        self, wanted: Mapping[int, Sequence[int]], refused: Collection[int] = ()
    ) -> list[Fetched]:
        """On rank 0, broadcast what is wanted and receive it; the other ranks send it."""
        if not self._reads_digests:
            return []
        if self.rank > 0:
            while self._hear_word():
                self._answer()
            self._word_came = True
            return []
        self._distrusted |= {self.seats.rank_of[worker] for worker in refused}
        if not wanted:
            return []
        asked = self._choose(wanted)
        self._others_await_word = False
        self._send_word(int(self._word[1]), asked)
        answers = self._vigil.patiently(lambda: self._receive_winners(asked))
        self._others_await_word = True
        return answers

    def round(
        self, step: int, posts: Mapping[int, bytes], expected: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """Gather what is posted on all ranks.

        Raises:
            LostServer: on other ranks than 0, if the run is over; this rank can still ``publish``.
        """
        self._await_word(step)
        found = self._peer_group.round(posts, expected, size)
        self._others_await_word = True
        return found

    def swap(
        self,
        step: int,
        vectors: Mapping[tuple[int, int], Tensor],
        expected: Mapping[tuple[int, int], int],
    ) -> dict[tuple[int, int], Tensor]:
        """Send and receive what is not withheld; what came is on the device of ``rows``.

        Raises:
            RunError: if this rank would send a vector of another type or size.
            LostServer: as :meth:`round`.
        """
        self._await_word(step)
        found = self._peer_group.swap(vectors, expected)
        self._others_await_word = True
        return found

    def end(self) -> None:
        """On rank 0, tell the others that the run is over, if they wait for its word.

        If they are in the middle of a step, they end when this process does.

        Raises:
            LostRank: if a rank is gone.
        """
        if self.rank > 0:
            if not self._has_ended:
                self._vigil.break_off()
            return
        if not (self._has_ended or self._vigil.is_broken):
            with suppress(RunError, Stopped):  # why the run ends is known already
                self._tell_the_end()
        self._has_ended = True
        self._vigil.kill_late()
        if self._vigil.lost:
            raise LostRank(self._vigil.lost)

    # What every rank does.

    def _await_word(self, step: int) -> None:
        """Begin a round or a swap with rank 0's word: until it, rank 0 may end the run."""
        self._others_await_word = False
        if self.rank == 0:
            self._send_word(step, {})
            return
        if not self._word_came:
            self._hear_word()
        self._word_came = int(self._word[1]) == _OVER
        if self._word_came:
            self._has_ended, self._vigil.is_needed = True, False
            raise LostServer("the run ended in the middle of a step")

    def _begin(self) -> None:
        self._others_await_word = False
        self._inbox = Inbox.empty(self.seats.assignment, self._reads_digests)
        self._said.clear()
        self._copies.clear()
        self._received.clear()
        self._own.clear()
        self._sending.clear()
        self._peer_group.begin()
        self._bytes_in = self._bytes_out = 0

    def _hear_word(self) -> bool:
        """Wait for rank 0's word; return whether it requests rows.

        Raises:
            RunError: if rank 0 is at another run, as this one failed there before it began.
        """
        self._broadcast(self._word)
        if int(self._word[0]) != self._run:
            raise RunError("rank 0, the server, is at another run: it did not begin this one")
        return bool((self._word[2:] != _NOBODY).any())

    def _broadcast(self, content: Tensor, seconds: float | None = None) -> None:
        """Overwrite a tensor with rank 0's; gloo carries what is on a GPU through host memory."""
        travels = content if content.device == self._rows.device else content.cpu()
        self._do(lambda: all_of([dist.broadcast(travels, 0, async_op=True)], travels), seconds)
        if self.rank > 0 and travels is not content:
            content.copy_(travels)
        if self.rank == 0:
            self._bytes_out += content.nbytes * len(self._peers)
        else:
            self._bytes_in += content.nbytes

    def _do(
        self, start: Callable[[], Iterable[Waitable | None]], seconds: float | None = None
    ) -> None:
        """Start operations, and wait for them."""
        self._vigil.patiently(lambda: finish(start()), seconds)

    def _that_travels(self, file: int, row: Tensor) -> Tensor:
        return row if row.device == self._rows.device else self._copies.of(file, row)

    # What ranks with workers do.

    def _report(self, statement: Statement) -> RankReport:
        report = RankReport(len(self._own))
        report.statement[:] = np.frombuffer(statement.pack(), dtype=np.uint8)
        for said, (worker, file, message) in zip(report.replicas, self._own, strict=True):
            said["loss"] = message.loss
            if self._reads_digests:
                digest, said["finite"] = self._said.digest(worker, file)
                said["digest"] = np.frombuffer(digest, dtype=np.uint8)
        return report

    def _answer(self) -> None:
        """Send the rows that rank 0 requests."""
        asked = [(file, worker) for file, worker in enumerate(self._word[2:].tolist())]
        mine = self.seats.workers_of(self.rank)
        rows = [self._said.row(worker, file)[0] for file, worker in asked if worker in mine]
        sends = [P2POp(dist.isend, row, 0, tag=_ROW) for row in rows if row is not None]
        if sends:
            self._do(lambda: start(sends))
        self._bytes_out += sum(send.tensor.nbytes for send in sends)

    # What rank 0 does.

    def _send_word(self, step: int, requests: Mapping[int, int]) -> None:
        """Begin a step, or request rows: by file the worker that sends it."""
        self._word[:2] = torch.tensor([self._run, step])
        self._word[2:] = _NOBODY
        for file, worker in requests.items():
            self._word[2 + file] = worker
        self._broadcast(self._word)

    def _tell_the_end(self) -> None:
        self._vigil.seconds = min(self._vigil.seconds, _END_S)
        if self._others_await_word:
            self._send_word(_OVER, {})
        else:
            self._vigil.break_off()

    def _receive(self, orders: Mapping[int, Order], reports: Mapping[int, RankReport]) -> None:
        """Receive rows in turns, one of each rank in a turn, and the reports."""
        last = [dist.irecv(report.content, r, tag=_REPORT) for r, report in reports.items()]
        if not self._reads_digests:
            self._received.open()
            turns = max(map(len, orders.values()), default=0)
            coming = self._start_turn(orders, 0)
            for turn in range(turns):
                came, coming = coming, self._start_turn(orders, turn + 1)
                finish(came)
                for rank, order in orders.items():
                    if turn < len(order):
                        worker, file = order[turn]
                        row = self._received.slot(rank, turn)
                        self._bytes_in += row.nbytes
                        place = self.seats.place_of[worker, file]
                        self._inbox.replicas[file][place] = self._received.keep(file, row)
            self._received.close()
        finish(last)

    def _start_turn(self, orders: Mapping[int, Order], turn: int) -> list[Waitable]:
        ranks = [rank for rank, order in orders.items() if turn < len(order)]
        slots = [(rank, self._received.slot(rank, turn)) for rank in ranks]
        return start([P2POp(dist.irecv, slot, rank, tag=_ROW) for rank, slot in slots])

    def _read(self, rank: int, order: Order, report: RankReport) -> None:
        """Put what a rank reports into the inbox."""
        self._inbox.statements[rank] = Statement.unpack(report.statement.tobytes())
        self._bytes_in += report.content.nbytes
        for (worker, file), said in zip(order, report.replicas, strict=True):
            place, loss = self.seats.place_of[worker, file], float(said["loss"])
            if self._reads_digests:
                digest, finite = said["digest"].tobytes(), bool(said["finite"])
                self._inbox.put(file, place, digest, finite, loss)
            else:
                self._inbox.losses[file, place] = loss

    def _put(self, worker: int, file: int, message: Message) -> None:
        """Put a replica of a worker that rank 0 plays into the inbox."""
        place = self.seats.place_of[worker, file]
        if self._reads_digests:
            digest, finite = self._said.digest(worker, file)
            self._inbox.put(file, place, digest, finite, message.loss)
        else:
            row = self._that_travels(file, message.joined)
            row = self._received.keep(file, row, is_reused=False)
            self._inbox.put(file, place, row, False, message.loss)

    def _choose(self, wanted: Mapping[int, Sequence[int]]) -> dict[int, int]:
        """Choose by file whom to ask: rank 0 itself, else the rank that has least to send."""
        load = dict.fromkeys(self.seats.players, 0)
        asked = {}
        for file in sorted(wanted):
            prices = [
                (rank in self._distrusted, rank > 0, load[rank], place)
                for place, rank in enumerate(self.seats.rank_of[one] for one in wanted[file])
            ]
            asked[file] = wanted[file][min(prices)[-1]]
            load[self.seats.rank_of[asked[file]]] += 1
        return asked

    def _receive_winners(self, asked: Mapping[int, int]) -> list[Fetched]:
        """Receive the rows of files, each into its own place; they are hashed as they come."""
        ranks = {file: self.seats.rank_of[worker] for file, worker in asked.items()}
        remote = [file for file in asked if ranks[file] > 0]
        works = start(
            [P2POp(dist.irecv, self._rows[file], ranks[file], tag=_ROW) for file in remote]
        )
        if len(works) < len(remote):  # NCCL: one for all
            finish(works)
            works = []
        answers = [
            Fetched(file, worker, *self._said.row(worker, file))
            for file, worker in asked.items()
            if ranks[file] == 0
        ]
        with ThreadPoolExecutor(_HASHERS) as hashers:
            digests = []
            for place, file in enumerate(remote):
                finish(works[place : place + 1])
                self._bytes_in += self._rows[file].nbytes
                digests.append(hashers.submit(self._digest, file))
        found = zip(remote, digests, strict=True)
        answers += [Fetched(file, asked[file], self._rows[file], it.result()) for file, it in found]
        return answers

    def _digest(self, file: int) -> bytes:
        row = self._rows[file]
        return row_digest(row, int(self._word[1]), file, is_finite(row))
