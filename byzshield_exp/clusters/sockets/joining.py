"""Joining: every worker process connects to the server's, and nobody else can.

Processes find each other by torch.distributed's store (torchrun), or in a folder of this machine.
From then on there are plain connections and no process group: gloo ends the whole process when a
peer sends more than was expected, and closes all connections when one peer is late, so that one
liar could stop the server.
"""

import hmac
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

from byzshield_exp.clusters.alone import AloneChannel
from byzshield_exp.clusters.sockets.channel import ServerChannel, WorkerChannel
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.line import Line
from byzshield_exp.clusters.sockets.wire import HEADER_BYTES, Header, Kind, Rejected, unpack
from byzshield_exp.clusters.transport import Channel
from byzshield_exp.errors import RunError, first_line

JOIN_S = 300.0  # for all processes to come
_HELLO_S = 3.0  # for one connection to say who it is
_SECRET_BYTES = 32
_KEY = "byzshield/server"  # in torchrun's store, which outlives a restart


@dataclass(frozen=True)
class Rendezvous:
    """Where a process finds its group.

    Attributes:
        address: a socket in a folder that only this user can open, or ``host:port``.
        secret: what the processes of this group know.
        rank: of this process; 0 is the server.
        world_size: processes of the group.
    """

    address: str
    secret: str
    rank: int
    world_size: int


@contextmanager
def meeting_place(world_size: int) -> Iterator[list[Rendezvous]]:
    """Where the processes of this machine meet, by rank; no port is opened."""
    secret = secrets.token_hex(_SECRET_BYTES)
    with tempfile.TemporaryDirectory(prefix="byzshield-") as folder:
        path = str(Path(folder) / "server")
        yield [Rendezvous(path, secret, rank, world_size) for rank in range(world_size)]


def join(rendezvous: Rendezvous) -> Channel:
    """Join a group; a single process needs no connections, and plays everybody.

    Raises:
        RunError: if the others do not come.
    """
    if rendezvous.world_size == 1:
        return AloneChannel()
    if rendezvous.rank == 0:
        with _listen(rendezvous.address) as door:
            return _welcome(door, rendezvous)
    return _enter(lambda: rendezvous)


def torchrun_size() -> int | None:
    """The number of processes when torchrun started this one, else None."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return None


def join_torchrun() -> Channel:
    """Join the group that torchrun started this process in.

    Raises:
        RunError: if the others do not come.
    """
    from torch.distributed.rendezvous import rendezvous as find_store

    store, rank, world_size = next(find_store("env://"))
    on_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(world_size)
    try:
        if rank > 0:
            store.set_timeout(timedelta(seconds=JOIN_S))

            def find() -> Rendezvous:
                address, secret = store.get(_KEY).decode().rsplit(" ", 1)
                return Rendezvous(address, secret, rank, world_size)

            return _enter(find)
        secret = secrets.token_hex(_SECRET_BYTES)
        with tempfile.TemporaryDirectory(prefix="byzshield-") as folder:
            address = str(Path(folder) / "server") if on_one_machine else _own_address()
            with _listen(address) as door:
                if not on_one_machine:
                    address = f"{address.rpartition(':')[0]}:{door.getsockname()[1]}"
                store.set(_KEY, f"{address} {secret}")
                return _welcome(door, Rendezvous(address, secret, rank, world_size))
    except (RuntimeError, ValueError) as error:
        raise RunError(f"rank {rank} found no group: {first_line(error)}") from error


def _own_address() -> str:
    """Where the other machines reach this one: by the name that torchrun's own store has."""
    return f"{os.environ['MASTER_ADDR']}:0"


def _listen(address: str) -> socket.socket:
    if address.startswith("/"):
        door = socket.socket(socket.AF_UNIX)
        door.bind(address)
        door.listen(socket.SOMAXCONN)
        return door
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    is_local_name = str(found[4][0]).startswith("127.")  # a machine's own name often is
    where = ("", int(port)) if is_local_name else found[4]
    return socket.create_server(where, family=found[0], backlog=socket.SOMAXCONN)


def _enter(find: Callable[[], Rendezvous]) -> Channel:
    """A worker's place. Where the server is is asked again and again: it may have moved."""
    deadline = monotonic() + JOIN_S
    while True:
        rendezvous = find()
        try:
            connection = _dial(rendezvous.address)
            break
        except OSError as error:  # the server is not there yet
            if monotonic() > deadline:
                raise RunError(
                    f"rank {rendezvous.rank} does not reach the server at {rendezvous.address}: "
                    f"{error}"
                ) from error
            sleep(0.02)
    secret = rendezvous.secret.encode()
    header = Header(Kind.HELLO, 0, rendezvous.rank, length=len(secret))
    connection.sendall(header.pack() + secret)
    return WorkerChannel(rendezvous.rank, rendezvous.world_size, Line(connection))


def _dial(address: str) -> socket.socket:
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=_HELLO_S)
    connection.settimeout(None)
    _care(connection)
    return connection


def _care(connection: socket.socket) -> None:
    """Small messages leave at once, and a machine that is gone is noticed."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # Linux: silent for a minute
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _welcome(door: socket.socket, rendezvous: Rendezvous) -> Channel:
    """Take one connection of each rank; whoever does not know the secret is sent away."""
    connections: dict[int, socket.socket] = {}
    deadline = monotonic() + JOIN_S
    ranks = set(range(1, rendezvous.world_size))
    while connections.keys() < ranks:
        door.settimeout(max(0.01, deadline - monotonic()))
        try:
            connection, _ = door.accept()
        except TimeoutError as error:
            missing = sorted(ranks - connections.keys())
            raise RunError(f"ranks {missing} did not come within {JOIN_S:.0f} s") from error
        rank = _who(connection, rendezvous.secret)
        if rank in ranks - connections.keys():
            _care(connection)
            connections[rank] = connection
        else:
            connection.close()
    return ServerChannel(rendezvous.world_size, Hub(connections))


def _who(connection: socket.socket, secret: str) -> int:
    """The rank at the other end; -1 for a stranger."""
    deadline = monotonic() + _HELLO_S
    try:
        header = unpack(_exactly(connection, HEADER_BYTES, deadline))
        if header.kind is not Kind.HELLO or header.length != len(secret):
            return -1
        said = _exactly(connection, header.length, deadline)
    except (OSError, Rejected):
        return -1
    return header.sender if hmac.compare_digest(said, secret.encode()) else -1


def _exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    content = b""
    while len(content) < count:
        connection.settimeout(max(0.01, deadline - monotonic()))
        more = connection.recv(count - len(content))
        if not more:
            raise ConnectionError("too short")
        content += more
    return content
