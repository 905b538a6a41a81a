"""Join the processes of a run: each worker process connects to the server's, and nobody else can.

Processes find each other by torch.distributed's store (torchrun), or in a folder of this machine.
From then on there are plain connections and no process group: gloo ends the whole process when a
peer sends more than was expected, and closes all connections when one peer is late, so that one
liar could stop the server.
"""

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
from byzshield_exp.clusters.sockets.connecting import admit, dial, listen
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.line import Line
from byzshield_exp.clusters.sockets.wire import Header, Kind
from byzshield_exp.clusters.transport import Channel
from byzshield_exp.errors import RunError, first_line

_KEY = "server"  # in torchrun's store


def join_at(rendezvous: Rendezvous) -> Channel:
    """Join a group of several processes at a known place.

    Raises:
        RunError: if the others do not come.
    """
    if rendezvous.rank == 0:
        with listen(rendezvous.address) as door:
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
            with listen(address) as door:
                if not are_on_one_machine():
                    address = f"{address.rpartition(':')[0]}:{door.getsockname()[1]}"
                store.set(_KEY, f"{address} {secret}")
                return _welcome(door, Rendezvous(address, secret, rank, world_size))
    except (RuntimeError, ValueError) as error:
        raise RunError(f"rank {rank} found no group: {first_line(error)}") from error


def _own_address() -> str:
    """Return the address at which other machines reach this one: that of torchrun's store."""
    return f"{os.environ['MASTER_ADDR']}:0"


def _enter(find: Callable[[], Rendezvous]) -> Channel:
    """Connect to the server; its address is looked up for each try, as it may have moved."""
    deadline = monotonic() + meeting.JOIN_S
    while True:
        rendezvous = find()
        try:
            connection = dial(rendezvous.address)
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


def _welcome(door: socket.socket, rendezvous: Rendezvous) -> Channel:
    """Accept one connection from each rank; close those that do not know the secret."""
    ranks = range(1, rendezvous.world_size)
    secrets_of = dict.fromkeys(ranks, rendezvous.secret.encode())
    connections = admit(door, secrets_of, monotonic() + meeting.JOIN_S)
    if missing := sorted(set(ranks) - connections.keys()):
        raise RunError(f"ranks {missing} did not come within {meeting.JOIN_S:.0f} s")
    return ServerChannel(rendezvous.world_size, Hub(connections))
