"""The server process's end of a run: who owes what, what came, and which rows to fetch."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.assignments import Assignment
from byzshield_exp.clusters.cluster import Cluster, Inbox, first_rows
from byzshield_exp.clusters.group import Group
from byzshield_exp.clusters.hub import Hub, Peer
from byzshield_exp.clusters.introduction import (
    DATA,
    MOST_BYTES,
    explain,
    pack_introduction,
    unpack_introduction,
)
from byzshield_exp.clusters.reader import Collect, Drain, Sink
from byzshield_exp.clusters.shelf import Copy, Shelf
from byzshield_exp.clusters.wire import (
    DTYPES,
    FROM_WORKER,
    STATEMENT_BYTES,
    Header,
    Kind,
    Rejected,
    unpack_statement,
)
from byzshield_exp.errors import RunError
from byzshield_exp.rows.digests import DIGEST_BYTES, RowHasher, bytes_of
from byzshield_exp.rows.finite import is_finite

_TOLD = 5  # rejected messages of a rank that are told in full
_MOST_REJECTED = 1000  # messages of a rank, then it is dropped
_CHECK = -1  # owed before the first step
_START_S = 30.0  # at least, for the answer before the first step
_SLOWEST, _FORGIVEN = 5.0, 0.05  # halvings of the patience; what an answer in time takes off
_FAIR = 3.0  # times what half of the ranks took, everybody has
_SLACK = 1 << 16  # bytes that a message may be longer than the longest before its sender is dropped


class Fetch:
    """A sink for a row that was asked for; it is hashed while it comes."""

    def __init__(
        self,
        row: Tensor,
        worker: int,
        file: int,
        step: int,
        said: tuple[bytes, bool],
        done: Callable[["Fetch", bool], None],
    ) -> None:
        self.worker, self.file, self.step = worker, file, step
        self.is_wanted = True
        self._row, self._said, self._done = row, said, done
        self.asked_at = 0.0
        self._content = bytes_of(row)
        self._at = 0
        self._hasher = RowHasher(row.dtype, len(row), step, file, said[1])

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
        """Compare with what was said before the vote."""
        digest, finite = self._said
        is_true = self.is_wanted and self._hasher.digest() == digest
        self._done(self, is_true and is_finite(self._row) == finite)


class ServerCluster(Cluster):
    """Orders steps and receives; whoever is silent, gone or talks nonsense does not stop it."""

    def __init__(
        self,
        group: Group,
        assignment: Assignment,
        reads_digests: bool,
        hub: Hub,
        worker_timeout: float,
        bucket: int,
    ) -> None:
        super().__init__(group, assignment, reads_digests)
        self._hub, self._run = hub, group.run
        self._timeout, self._bucket = worker_timeout, bucket
        self._shelf: Shelf | None = None
        self._step = -1
        self._ordered_at = 0.0
        self._owed: dict[int, int] = {}  # by rank, the step whose statement has not come
        self._silent: set[int] = set()  # ranks that a person was told of
        self._slowness: dict[int, float] = dict.fromkeys(hub.peers, 0.0)  # see _patience
        self._half_took: float | None = None  # seconds until half of those asked had answered
        self._num_asked = 0
        self._has_ended = False
        self._rank_of = {worker: rank for rank in hub.peers for worker in self.workers_of(rank)}
        self._fetches: dict[int, deque[Fetch]] = {rank: deque() for rank in hub.peers}
        self._delivered: set[int] = set()
        self._wanted: dict[int, Sequence[int]] = {}
        self._failed: set[tuple[int, int]] = set()  # worker and file
        self._came: set[tuple[int, int]] = set()  # file and place
        self._checks: dict[int, bytes] = {}
        self._own: dict[str, str] = {}  # what this process says of its host and data
        self._introduced: dict[int, dict[str, str]] = {}  # by rank, of its host and data
        self._num_rejected: dict[int, int] = {}
        self._traffic_before: dict[int, tuple[int, int]] = {}
        hub.listen_to(self, DIGEST_BYTES + STATEMENT_BYTES + _SLACK, bucket)

    # What the run asks for.

    def compare_digests(self, digest: bytes | None, entries: Mapping[str, str]) -> None:
        """Wait for all and compare.

        Raises:
            RunError: naming the ranks that differ and what they say of themselves, or if no rank
                answers.
        """
        self._own = own = unpack_introduction(pack_introduction(entries))
        self._owed = {peer.rank: _CHECK for peer in self._hub.alive}
        self._ordered_at = self._hub.now()
        deadline = self._ordered_at + max(self._timeout, _START_S)
        self._hub.pump(lambda: not self._owed, lambda: deadline)
        if not self._checks:
            raise RunError("no rank with workers answers before the first step")
        for rank in sorted(self._owed):
            self._tell_silent(rank)
        others = [
            rank for rank, said in self._introduced.items() if said.get(DATA) != own.get(DATA)
        ]
        odd = sorted({*others, *self._odd()})
        if odd:
            what = (
                "read other data than the server"
                if set(odd) == set(others)
                else "computed other bits for file 0 than the rest, so replicas cannot agree"
            )
            raise RunError(f"ranks {odd} {what}; {explain(odd, self._introduced, own)}")

    def _odd(self) -> list[int]:
        """Ranks whose digest is not the most common one."""
        common = max(self._checks.values(), key=list(self._checks.values()).count)
        return sorted(rank for rank, value in self._checks.items() if value != common)

    def _checked(self, peer: Peer, said: bytes) -> None:
        """A digest of file 0 has come; late, if steps have begun."""
        introduced = unpack_introduction(said[DIGEST_BYTES:])
        del self._owed[peer.rank]
        self._checks[peer.rank] = said[:DIGEST_BYTES]
        self._introduced[peer.rank] = introduced
        if peer.rank in self._silent:
            self._back(peer.rank)
            if peer.rank in self._odd():
                why = explain([peer.rank], self._introduced, self._own)
                self._hub.lose(peer, f"it computed other bits for file 0 than the rest; {why}")

    def share(self, content: Tensor) -> None:
        """Send the tensor to all."""
        payload = bytes_of(content.cpu().clone()).data
        header = Header(Kind.SHARE, self._run, 0, length=len(payload)).pack()
        for peer in self._hub.alive:
            self._hub.send(peer, header, payload)

    def begin_step(self, params: Float[Tensor, " d"], step: int | None) -> int | None:
        """Order the step from all that have answered the one before."""
        super().begin_step(params, step)
        if step is None:
            self.end()
            return None
        if self._shelf is None:
            self._shelf = Shelf(self.assignment.num_files, params, self._bucket)
            longest = params.numel() * params.element_size()
            self._hub.listen_to(self, longest + _SLACK, self._bucket)
        self._shelf.clear()
        self._step = step
        self._delivered, self._wanted = set(), {}
        self._failed.clear()
        self.caught.clear()
        self._came.clear()
        self._traffic_before = self._traffic()
        payload = bytes_of(params.cpu().clone()).data  # a slow peer may still read it
        header = Header(Kind.ORDER, self._run, 0, step=step, length=len(payload)).pack()
        self._half_took, self._num_asked = None, 0
        for peer in self._hub.alive:
            if self._is_ready(peer):
                self._num_asked += 1
                self._owed[peer.rank] = step
                self._hub.send(peer, header, payload)
        self._ordered_at = self._hub.now()
        return step

    def gather(self, step: int) -> Inbox:
        """Wait until all have answered, for each rank no longer than the patience with it."""
        self._hub.pump(
            lambda: not self._owing(step),
            lambda: self._ordered_at + max(self._patience(rank) for rank in self._owing(step)),
        )
        for rank in self._owing(step):
            self._tell_silent(rank)
        inbox = self._inbox
        inbox.absent = tuple(
            worker
            for rank in self._hub.peers
            if rank not in inbox.statements
            for worker in self.workers_of(rank)
        )
        self._count_traffic()
        return inbox

    def deliver(
        self, winners: Mapping[int, Sequence[int]]
    ) -> tuple[list[int], Float[Tensor, "n d"]]:
        """Fetch the winning rows that have not come yet; with rows there is nothing to fetch."""
        table = self._rows_of_files
        if not self.reads_digests:
            for file, places in winners.items():
                row = self._inbox.replicas[file][places[0]]
                if isinstance(row, Tensor) and row.data_ptr() != table[file].data_ptr():
                    table[file].copy_(row)
            return list(winners), first_rows(table, list(winners))
        self._wanted = dict(winners)
        for file in winners:
            self._fetch(file)
        for fetches in self._fetches.values():
            for fetch in fetches:
                fetch.is_wanted &= fetch.file in winners
        while not self._all_fetched():
            self._hub.pump(self._all_fetched, self._first_deadline)
            late = self._late()
            for rank in late:  # all of them first: the others are asked instead
                self._tell_silent(rank)
            for rank in late:
                self._give_up(rank)
        self._count_traffic()
        files = [file for file in winners if file in self._delivered]
        return files, first_rows(table, files)

    def end(self) -> None:
        """Tell all that the run is over, once."""
        if self._has_ended:
            return
        self._has_ended = True
        header = Header(Kind.END, self._run, 0).pack()
        for peer in self._hub.alive:
            self._hub.send(peer, header)
        self._hub.flush(peer for peer in self._hub.alive if peer.rank not in self._owed)

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
        _expect("run", header.run, self._run)
        _expect("sender", header.sender, peer.rank)
        if header.kind is Kind.CHECK:
            if not DIGEST_BYTES <= header.length <= DIGEST_BYTES + MOST_BYTES:
                raise Rejected(f"a CHECK of {header.length:,} bytes")
            if self._owed.get(peer.rank) != _CHECK:
                raise Rejected("a CHECK that nobody asked for")
            return Collect(header.length, lambda said: self._checked(peer, said))
        if header.kind is Kind.ROW and self.reads_digests:
            return self._accept_fetched(peer, header)
        owed = self._owed.get(peer.rank)
        if owed is None:
            raise Rejected(f"{header.kind.name} of step {header.step + 1}: it owes nothing")
        _expect("step", header.step, owed)
        if header.kind is Kind.DONE:
            _expect("length", header.length, STATEMENT_BYTES)
            return Collect(STATEMENT_BYTES, lambda said: self._done(peer, owed, said))
        return self._accept_replica(peer, header)

    def reject(self, peer: Peer, rejected: Rejected) -> None:
        """Count it; the first ones of a rank are told."""
        self._inbox.rejected += 1
        count = self._num_rejected[peer.rank] = self._num_rejected.get(peer.rank, 0) + 1
        if count <= _TOLD:
            more = "; more of it are only counted" if count == _TOLD else ""
            self._say(f"rejected a message of {self._name(peer.rank)}: {rejected}{more}")
        if count >= _MOST_REJECTED:
            self._hub.lose(peer, f"{count} of its messages were rejected")

    def lost(self, peer: Peer, reason: str) -> None:
        """Its workers are absent from now on."""
        self._owed.pop(peer.rank, None)
        self._say(f"lost {self._name(peer.rank)} for the rest of the run: {reason}")
        self._give_up(peer.rank)
        self._fetches[peer.rank].clear()

    # One message.

    def _accept_replica(self, peer: Peer, header: Header) -> Sink:
        place = self._place_of.get((header.worker, header.file))
        if header.worker not in self.workers_of(peer.rank) or place is None:
            raise Rejected(f"worker={header.worker} file={header.file}: not one of its replicas")
        _expect("kind", header.kind, Kind.DIGEST if self.reads_digests else Kind.ROW)
        _expect("length", header.length, DIGEST_BYTES if self.reads_digests else self._row_bytes)
        if header.kind is Kind.ROW:
            _expect("dtype", header.dtype, DTYPES[self._rows_of_files.dtype])
        if header.step != self._step:
            return Drain()  # it answers late
        if (header.file, place) in self._came:
            raise Rejected(f"worker={header.worker} file={header.file}: twice")
        self._came.add((header.file, place))
        if header.kind is Kind.DIGEST:
            return Collect(DIGEST_BYTES, lambda said: self._take(header, place, said))
        if self._shelf is None:
            raise Rejected("no step has begun")
        return Copy(self._shelf, header.file, lambda row: self._take(header, place, row))

    def _take(self, header: Header, place: int, replica: Tensor | bytes) -> None:
        """A replica has come whole, which may be after its step."""
        if header.step != self._step:
            return
        inbox, file = self._inbox, header.file
        if isinstance(replica, bytes):
            replica += bytes([header.finite])  # a class is of one mind about it
        inbox.replicas[file][place] = replica
        inbox.losses[file, place] = header.loss
        if inbox.finite is not None:
            inbox.finite[file, place] = header.finite
            same = [at for at, other in enumerate(inbox.replicas[file]) if other == replica]
            is_won = len(same) >= self.assignment.majority and header.finite
            if is_won and file not in self._wanted:  # whatever the others say
                self._wanted[file] = same
                self._fetch(file)

    def _done(self, peer: Peer, step: int, said: bytes) -> None:
        """A rank has answered; if that is late, it is back from now on."""
        del self._owed[peer.rank]
        if step == self._step:
            self._inbox.statements[peer.rank] = unpack_statement(said)
            if self._half_took is None and 2 * len(self._inbox.statements) >= self._num_asked:
                self._half_took = self._hub.now() - self._ordered_at
            if peer.rank not in self._silent:
                self._slowness[peer.rank] = max(0.0, self._slowness[peer.rank] - _FORGIVEN)
        if peer.rank in self._silent and not self._fetches[peer.rank]:
            self._back(peer.rank)

    # Rows by request.

    def _fetch(self, file: int) -> None:
        """Ask a member of the winning class that has not failed yet: a quick one, an idle one."""
        active = any(
            fetch.file == file and fetch.is_wanted for q in self._fetches.values() for fetch in q
        )
        if file in self._delivered or active or self._shelf is None:
            return
        inbox, workers = self._inbox, self.assignment.workers_of_file[file].tolist()
        members = [
            (
                (self._slowness[peer.rank], len(self._fetches[peer.rank]), place),
                workers[place],
                peer,
            )
            for place in self._wanted.get(file, ())
            if (workers[place], file) not in self._failed
            and (peer := self._peer_of(workers[place])).is_alive
            and peer.rank not in self._silent
        ]
        if not members or inbox.finite is None:
            return
        (*_, place), worker, peer = min(members, key=lambda member: member[0])
        replica = inbox.replicas[file][place]
        if isinstance(replica, bytes):
            said = replica[:DIGEST_BYTES], bool(replica[-1])
            row = self._shelf.matrix[file]
            fetch = Fetch(row, worker, file, self._step, said, self._fetched)
            self._fetches[peer.rank].append(fetch)
            header = Header(Kind.FETCH, self._run, 0, worker, file, self._step)
            self._hub.send(peer, header.pack())
            fetch.asked_at = self._hub.now()

    def _accept_fetched(self, peer: Peer, header: Header) -> Sink:
        """The next row that this peer was asked for; anything else of this kind is rejected."""
        if not self._fetches[peer.rank]:
            raise Rejected("a row that nobody asked for")
        fetch = self._fetches[peer.rank][0]
        try:
            _expect("worker", header.worker, fetch.worker)
            _expect("file", header.file, fetch.file)
            _expect("step", header.step, fetch.step)
            _expect("length", header.length, self._row_bytes)
            _expect("dtype", header.dtype, DTYPES[self._rows_of_files.dtype])
        except Rejected:
            self._fetched(fetch, is_true=False)
            raise
        return fetch

    def _fetched(self, fetch: Fetch, is_true: bool) -> None:
        """A row has come whole."""
        rank = self._peer_of(fetch.worker).rank
        self._fetches[rank].remove(fetch)
        if not fetch.is_wanted:
            if rank in self._silent and rank not in self._owed and not self._fetches[rank]:
                self._back(rank)
        elif is_true:
            self._delivered.add(fetch.file)
        else:
            fetch.is_wanted = False
            self._say(
                f"worker {fetch.worker} ({self._name(rank)}) sent another row for file "
                f"{fetch.file} than its digest says: caught"
            )
            self._failed.add((fetch.worker, fetch.file))
            self.caught.add((fetch.worker, fetch.file))
            self._slowness[rank] = _SLOWEST  # the last to be asked
            self._fetch(fetch.file)

    def _all_fetched(self) -> bool:
        return not any(fetch.is_wanted for fetches in self._fetches.values() for fetch in fetches)

    def _give_up(self, rank: int) -> None:
        """Fetch from others what this rank was asked for."""
        for fetch in [fetch for fetch in self._fetches[rank] if fetch.is_wanted]:
            fetch.is_wanted = False
            self._failed.add((fetch.worker, fetch.file))
            self._fetch(fetch.file)

    # Small things.

    @property
    def _rows_of_files(self) -> Tensor:
        if self._shelf is None:
            raise Rejected("no step has begun")
        return self._shelf.matrix

    @property
    def _row_bytes(self) -> int:
        return self._rows_of_files.shape[1] * self._rows_of_files.element_size()

    def _is_ready(self, peer: Peer) -> bool:
        return not (peer.rank in self._owed or self._fetches[peer.rank] or peer.outbox)

    def _peer_of(self, worker: int) -> Peer:
        return self._hub.peers[self._rank_of[worker]]

    def _owing(self, step: int) -> list[int]:
        return sorted(rank for rank, owed in self._owed.items() if owed == step)

    def _first_deadline(self) -> float:
        """When the first rank should have sent a row that it was asked for."""
        return min(
            fetch.asked_at + self._patience(rank)
            for rank, fetches in self._fetches.items()
            for fetch in fetches
            if fetch.is_wanted
        )

    def _late(self) -> list[int]:
        """Ranks that should have sent a row by now."""
        now = self._hub.now()
        return [
            rank
            for rank, fetches in self._fetches.items()
            if any(f.is_wanted and now - f.asked_at >= self._patience(rank) for f in fetches)
        ]

    def _patience(self, rank: int) -> float:
        """Seconds: half as many each time that a rank was silent, until it answers in time again.

        So it cannot slow every step; but nobody has less than a multiple of what others needed.
        """
        if self._half_took is None:
            return self._timeout
        least = _FAIR * self._half_took
        return min(self._timeout, max(self._timeout / 2 ** self._slowness[rank], least))

    def _say(self, what: str) -> None:
        self.events.append(f"step {self._step + 1}: {what}")

    def _name(self, rank: int) -> str:
        workers = self.workers_of(rank)
        if len(workers) == 1:
            return f"rank {rank} (worker {workers.start})"
        return f"rank {rank} (workers {workers.start} to {workers.stop - 1})"

    def _tell_silent(self, rank: int) -> None:
        if rank not in self._silent:
            self._silent.add(rank)
            self._slowness[rank] = min(_SLOWEST, self._slowness[rank] + 1)
            waited = self._hub.now() - self._ordered_at
            self._say(f"{self._name(rank)} is silent for {waited:.3g} s: absent until it answers")

    def _back(self, rank: int) -> None:
        self._silent.discard(rank)
        self._say(f"{self._name(rank)} answers again: it is back from the next step on")

    def _traffic(self) -> dict[int, tuple[int, int]]:
        return {rank: (peer.bytes_in, peer.bytes_out) for rank, peer in self._hub.peers.items()}

    def _count_traffic(self) -> None:
        before, now = (
            np.array(list(traffic.values())).sum(axis=0)
            for traffic in (self._traffic_before, self._traffic())
        )
        self._inbox.bytes_in, self._inbox.bytes_out = (now - before).tolist()


def _expect(name: str, got: int, wanted: int) -> None:
    if got != wanted:
        raise Rejected(f"{name}={got} instead of {wanted}")
