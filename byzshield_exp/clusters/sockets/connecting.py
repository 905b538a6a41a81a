"""Connections between processes, which nobody else can make: who calls says a secret first."""

import hmac
import socket
from collections.abc import Mapping
from time import monotonic

from byzshield_exp.clusters.sockets.wire import HEADER_BYTES, Kind, Rejected, unpack

_HELLO_S = 3.0  # for one connection to say who it is


def listen(address: str) -> socket.socket:
    """Open a door at a path or ``host:port``."""
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


def dial(address: str) -> socket.socket:
    """Connect to a door.

    Raises:
        OSError: if nobody is there.
    """
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_HELLO_S)  # a full queue is an error at once
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        connection.settimeout(None)
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


def admit(
    door: socket.socket, secrets: Mapping[int, bytes], deadline: float
) -> dict[int, socket.socket]:
    """Accept one connection from each rank that says its secret; close all others.

    Args:
        door: that listens.
        secrets: by rank.
        deadline: by the monotonic clock; who has not come by then is missing.
    """
    connections: dict[int, socket.socket] = {}
    while connections.keys() < secrets.keys():
        door.settimeout(max(0.01, deadline - monotonic()))
        try:
            connection, _ = door.accept()
        except TimeoutError:
            break
        missing = {rank: secrets[rank] for rank in secrets.keys() - connections.keys()}
        rank = _identify(connection, missing)
        if rank is None:
            connection.close()
            continue
        _set_options(connection)
        connections[rank] = connection
    return connections


def _identify(connection: socket.socket, secrets: Mapping[int, bytes]) -> int | None:
    """Return the rank at the other end; None for a stranger."""
    deadline = monotonic() + _HELLO_S
    try:
        header = unpack(_exactly(connection, HEADER_BYTES, deadline))
        secret = secrets.get(header.sender)
        if header.kind is not Kind.HELLO or secret is None or header.length != len(secret):
            return None
        said = _exactly(connection, header.length, deadline)
    except (OSError, Rejected):
        return None
    return header.sender if hmac.compare_digest(said, secret) else None


def _exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    content = b""
    while len(content) < count:
        connection.settimeout(max(0.01, deadline - monotonic()))
        more = connection.recv(count - len(content))
        if not more:
            raise ConnectionError("too short")
        content += more
    return content
