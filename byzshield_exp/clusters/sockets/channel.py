"""What connects the processes of a sweep: jobs go out, and each run has a transport of its own."""

from torch import Tensor

from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.line import Line
from byzshield_exp.clusters.sockets.server import SocketServer
from byzshield_exp.clusters.sockets.wire import Header, Kind
from byzshield_exp.clusters.sockets.worker import SocketWorker
from byzshield_exp.clusters.transport import Options
from byzshield_exp.errors import LostServer


class ServerChannel:
    """Rank 0's end; see :class:`~byzshield_exp.clusters.transport.Channel`.

    Args of the constructor:
        world_size: processes.
        hub: the connections to all other ranks.
        run: counts the runs, so that messages of another one are told apart.

    Attributes:
        hub: as given.
    """

    rank = 0

    def __init__(self, world_size: int, hub: Hub, run: int = 0) -> None:
        self.world_size, self.hub, self._run = world_size, hub, run

    def tell(self, text: str) -> None:
        """Send a job to all workers; an empty one is the last."""
        self._run += 1
        content = text.encode()
        header = Header(Kind.JOB, self._run, 0, length=len(content)).pack()
        for peer in self.hub.alive:
            self.hub.send(peer, header, content)
        self.hub.flush(self.hub.alive)

    def hear(self) -> str:
        """Nobody tells the server.

        Raises:
            LostServer: always.
        """
        raise LostServer("this is the server")

    def open(self, seats: Seats, options: Options, rows: Tensor) -> SocketServer:
        """The server's transport for a run."""
        return SocketServer(seats, options, rows, self.hub, self._run)

    def close(self) -> None:
        """Close all connections."""
        self.hub.close()


class WorkerChannel:
    """Another rank's end; see :class:`~byzshield_exp.clusters.transport.Channel`.

    Args of the constructor:
        rank: from 1.
        world_size: processes.
        line: the connection to the server.
        run: counts the runs.
    """

    def __init__(self, rank: int, world_size: int, line: Line, run: int = 0) -> None:
        self.rank, self.world_size, self._line, self._run = rank, world_size, line, run

    def tell(self, text: str) -> None:
        """Only the server tells."""

    def hear(self) -> str:
        """Wait for the server's next job.

        Raises:
            LostServer: if there is no server any more.
        """
        while True:
            header, content = self._line.next()
            if header.kind is Kind.JOB:
                self._run = header.run
                return bytes(content).decode()

    def open(self, seats: Seats, options: Options, rows: Tensor) -> SocketWorker:
        """A worker's transport for a run."""
        return SocketWorker(seats, self.rank, options.reads_digests, self._line, self._run)

    def close(self) -> None:
        """Close the connection."""
        self._line.close()
