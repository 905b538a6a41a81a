"""How messages travel: the verbs of every transport, and of the channel that opens one.

Every rank of a run calls the verbs of :class:`Transport` in the same order: ``introduce`` and
``share`` before the first step; in each step ``publish``, then with a server ``send`` for each of
its replicas, ``collect`` and ``fetch``, among peers ``round`` and ``swap`` as often as their
protocol has it; ``end`` at the end. A sibling is a file or a folder, not a subclass: ``alone``,
``sockets``, ``process_group``.

``round`` and ``swap`` go from id to id. A worker is an id, a peer that one process plays; so is
``-1 - rank``, an observer: a process itself, where it follows the run and plays no peer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from byzshield_exp.clusters.inbox import Inbox, Statement
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.rows.message import Message


@dataclass(frozen=True, eq=False)
class Fetched:
    """The answer to a request for a row.

    Attributes:
        file: that was asked for.
        worker: that was asked; None: nobody of those that have the row can be asked.
        row: ``[d + s]`` as it came, not checked; None if it did not come.
        digest: of ``row``, where it was made on the way.
        is_false: whether a message came that is no such row.
    """

    file: int
    worker: int | None = None
    row: Tensor | None = None
    digest: bytes | None = None
    is_false: bool = False


@dataclass(frozen=True)
class TransportOptions:
    """How a run uses its transport.

    Attributes:
        reads_digests: whether digests of rows are voted, and rows only fetched.
        worker_timeout: seconds after which a rank that has not answered is absent from a step.
        bucket: bytes that the server receives and compares at a time.
        is_mesh: whether vectors are swapped, for which all ranks are connected.
    """

    reads_digests: bool = False
    worker_timeout: float = 300.0
    bucket: int = 1 << 20
    is_mesh: bool = False


@runtime_checkable
class Transport(Protocol):
    """This process's end of a run."""

    @property
    def rank(self) -> int:
        """This process's number; 0 is the server."""
        ...

    @property
    def seats(self) -> Seats:
        """Who plays whom."""
        ...

    @property
    def events(self) -> list[str]:
        """Human-readable warnings; the reader clears them."""
        ...

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that this process received and sent since the step began."""
        ...

    def introduce(self, said: bytes) -> dict[int, bytes] | None:
        """Tell the server a few bytes; it gets by rank what the ranks with workers say.

        A rank that is silent is missing; what it says later is in :attr:`Inbox.introductions`.
        """
        ...

    def drop(self, rank: int, reason: str) -> None:
        """On the server, close the connection to a rank."""
        ...

    def share(self, content: Tensor) -> None:
        """Overwrite a tensor on all ranks with the server's, which all have the size of."""
        ...

    def publish(self, step: int | None, params: Tensor | None) -> int | None:
        """Begin a step; every rank returns the server's number of it, None at the end of the run.

        Args:
            step: on the server the next step, None to end the run; ignored on other ranks.
            params: ``[n]``, read on the server and overwritten on other ranks; None on all ranks
                where none are to travel.
        """
        ...

    def send(self, step: int, worker: int, file: int, message: Message) -> None:
        """Send a replica. Its memory must stay as it is until the next step."""
        ...

    def collect(self, step: int, statement: Statement, lying: Collection[int]) -> Inbox | None:
        """Say that all replicas of this process were sent; on the server, get all that came.

        Args:
            step: of the run.
            statement: of this process.
            lying: workers that lie: with it every rank knows :meth:`Seats.order_of`.
        """
        ...

    def fetch(
        self, wanted: Mapping[int, Sequence[int]], refused: Collection[int] = ()
    ) -> list[Fetched]:
        """On the server, get rows whose digests came; other ranks answer until nothing is wanted.

        Args:
            wanted: by file the workers that have its row, the first to ask first; empty: nothing
                more is wanted in this step.
            refused: workers that sent another row than they had said: they are asked last.

        Returns:
            Answers for at least one file; a file without one is still on its way, and is asked for
            again by the next call.
        """
        ...

    def round(
        self, step: int, posts: Mapping[int, bytes], expected: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """Post a few bytes for ids of this process; every rank gets the same bundle.

        It is the broadcast channel that protocols between peers assume; rank 0 carries it.

        Args:
            step: of the run.
            posts: by id; who posts nothing is not in it.
            expected: the ids that may post, equal on all ranks, in the order of the bundle.
            size: bytes of each post, equal on all ranks.

        Returns:
            By id what was posted, in the order of ``expected``; who was silent is missing for all.
        """
        ...

    def swap(
        self,
        step: int,
        vectors: Mapping[tuple[int, int], Tensor],
        expected: Mapping[tuple[int, int], int],
    ) -> dict[tuple[int, int], Tensor]:
        """Carry float32 vectors from id to id, those between other ranks not through rank 0.

        Args:
            step: of the run.
            vectors: by sender and receiver, those that ids of this process send, also to each
                other; one that is withheld is not in it. Their memory must stay as it is until the
                next step.
            expected: of all pairs of the run, equal and in equal order on all ranks: the entries of
                each vector. Nobody sends to itself, and an observer sends to nobody.

        Returns:
            The vectors whose receiver is an id of this process, in the order of ``expected``; one
            that did not come, or is no such vector, is missing. They are good until the next step,
            and receivers do not write to them. Those of other processes are where ``rows`` of
            :meth:`Channel.open` are.
        """
        ...

    def end(self) -> None:
        """On the server, let the other ranks end as well; at the end, or after a failure."""
        ...


@runtime_checkable
class Channel(Protocol):
    """What connects the processes of a group; each run opens a transport on it.

    Attributes:
        rank: of this process; 0 is the server.
        world_size: processes; 1: one process plays everybody.
        backend: ``alone``, ``sockets``, ``gloo`` or ``nccl``.
        run: number of the run that opens next, equal on all ranks, so that what is left of
            another one is told apart.
    """

    rank: int
    world_size: int
    backend: str
    run: int

    def open(self, seats: Seats, options: TransportOptions, rows: Tensor) -> Transport:
        """Open the transport of a run.

        Args:
            seats: who plays whom.
            options: how it is used.
            rows: ``[f, d + s]``, on the server where rows that come may be stored, each in its
                file's place; ignored on other ranks.
        """
        ...

    def close(self) -> None:
        """Close this process's connections."""
        ...
