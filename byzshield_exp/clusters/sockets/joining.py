"""Join the processes of a run: each worker process connects to the server's, and nobody else can.

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
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

from torch.distributed import Store

from byzshield_exp.clusters import meeting
from byzshield_exp.clusters.meeting import SECRET_BYTES, Rendezvous, are_on_one_machine
from byzshield_exp.clusters.sockets.channel import ServerChannel, WorkerChannel
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.line import Line
from byzshield_exp.clusters.sockets.wire import HEADER_BYTES, Header, Kind, Rejected, unpack
from byzshield_exp.clusters.transport import Channel
from byzshield_exp.errors import RunError, first_line

_HELLO_S = 3.0  # for one connection to say who it is
_KEY = "server"  # in torchrun's store


def join_at(rendezvous: Rendezvous) -> Channel:
    """Join a group of several processes at a known place.

    Raises:
        RunError: if the others do not come.
    """
    if rendezvous.rank == 0:
        with _listen(rendezvous.address) as door:
            return _welcome(door, rendezvous)
    return _enter(lambda: rendezvous)


def join_by_store(store: Store, rank: int, world_size: int) -> Channel:
    """Join the group whose server writes its place into torchrun's store.

    Raises:
        RunError: if the others do not come.
    """
    try:
        if rank > 0:
            store.set_timeout(timedelta(seconds=meeting.JOIN_S))

            def find() -> Rendezvous:
                address, secret = store.get(_KEY).decode().rsplit(" ", 1)
                return Rendezvous(address, secret, rank, world_size)

            return _enter(find)
        secret = secrets.token_hex(SECRET_BYTES)
        with tempfile.TemporaryDirectory(prefix="byzshield-") as folder:
            address = str(Path(folder) / "server") if are_on_one_machine() else _own_address()
            with _listen(address) as door:
                if not are_on_one_machine():
                    address = f"{address.rpartition(':')[0]}:{door.getsockname()[1]}"
                store.set(_KEY, f"{address} {secret}")
                return _welcome(door, Rendezvous(address, secret, rank, world_size))
    except (RuntimeError, ValueError) as error:
        raise RunError(f"rank {rank} found no group: {first_line(error)}") from error


def _own_address() -> str:
    """Return the address at which other machines reach this one: that of torchrun's store."""
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
    """Connect to the server; its address is looked up for each try, as it may have moved."""
    deadline = monotonic() + meeting.JOIN_S
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
    _set_options(connection)
    return connection


def _set_options(connection: socket.socket) -> None:
    """Send small messages at once, and notice a machine that is gone."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # Linux: silent for a minute
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _welcome(door: socket.socket, rendezvous: Rendezvous) -> Channel:
    """Accept one connection from each rank; close those that do not know the secret."""
    connections: dict[int, socket.socket] = {}
    deadline = monotonic() + meeting.JOIN_S
    ranks = set(range(1, rendezvous.world_size))
    while connections.keys() < ranks:
        door.settimeout(max(0.01, deadline - monotonic()))
        try:
            connection, _ = door.accept()
        except TimeoutError as error:
            missing = sorted(ranks - connections.keys())
            raise RunError(f"ranks {missing} did not come within {meeting.JOIN_S:.0f} s") from error
        rank = _identify(connection, rendezvous.secret)
        if rank in ranks - connections.keys():
            _set_options(connection)
            connections[rank] = connection
        else:
            connection.close()
    return ServerChannel(rendezvous.world_size, Hub(connections))


def _identify(connection: socket.socket, secret: str) -> int:
    """Return the rank at the other end; -1 for a stranger."""
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
