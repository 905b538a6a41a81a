"""The connections of a group: each run opens a transport on them."""

from torch import Tensor

from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.line import Line
from byzshield_exp.clusters.sockets.server import SocketServer
from byzshield_exp.clusters.sockets.worker import SocketWorker
from byzshield_exp.clusters.transport import TransportOptions


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
    backend = "sockets"

    def __init__(self, world_size: int, hub: Hub, run: int = 0) -> None:
        self.world_size, self.hub, self.run = world_size, hub, run

    def open(self, seats: Seats, options: TransportOptions, rows: Tensor) -> SocketServer:
        """Open the server's transport for a run."""
        return SocketServer(seats, options, rows, self.hub, self.run)

    def close(self) -> None:
        """Close all connections."""
        self.hub.close()


class WorkerChannel:
    """Another rank's end; see :class:`~byzshield_exp.clusters.transport.Channel`.

    Args of the constructor:
        rank: from 1.
        world_size: processes.
        line: the connection to the server.
        run: number of the run.
    """

    backend = "sockets"

    def __init__(self, rank: int, world_size: int, line: Line, run: int = 0) -> None:
        self.rank, self.world_size, self._line, self.run = rank, world_size, line, run

    def open(self, seats: Seats, options: TransportOptions, rows: Tensor) -> SocketWorker:
        """Open a worker's transport for a run."""
        return SocketWorker(seats, self.rank, options, self._line, self.run)

    def close(self) -> None:
        """Close the connection."""
        self._line.close()
