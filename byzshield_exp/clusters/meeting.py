"""Where the processes of a run find each other."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

JOIN_S = 300.0  # for all processes to come
SECRET_BYTES = 32


@dataclass(frozen=True)
class Rendezvous:
    """Where a process finds its group.

    Attributes:
        address: a file in a folder that only this user can open, or ``host:port``.
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
    """Make a place where the processes of this machine meet; it opens no port."""
    secret = secrets.token_hex(SECRET_BYTES)
    with tempfile.TemporaryDirectory(prefix="byzshield-") as folder:
        path = str(Path(folder) / "server")
        yield [Rendezvous(path, secret, rank, world_size) for rank in range(world_size)]


def torchrun_size() -> int | None:
    """Return the number of processes if torchrun started this one, else None."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return None


def are_on_one_machine() -> bool:
    """Whether torchrun started all processes on this machine."""
    return os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
