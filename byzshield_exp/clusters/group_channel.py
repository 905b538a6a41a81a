"""The default process group of torch.distributed: each run opens a transport on it."""

import os
import socket
import sys
from datetime import timedelta
from time import monotonic, sleep

import psutil
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store

from byzshield_exp import interrupts
from byzshield_exp.clusters import meeting
from byzshield_exp.clusters.process_group import ProcessGroup
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.transport import TransportOptions
from byzshield_exp.clusters.vigil import Vigil
from byzshield_exp.errors import RunError, first_line

_BACKENDS = {"gloo": "gloo", "nccl": "cpu:gloo,cuda:nccl"}
_LOOK_S = 0.02
_FOR_EVER = timedelta(days=30)  # a vigil ends a wait sooner, and says who was waited for
_INTERFACE = "GLOO_SOCKET_IFNAME"


class ProcessGroupChannel:
    """A rank's end of the group; see :class:`~byzshield_exp.clusters.transport.Channel`.

    Args of the constructor:
        store: that all ranks reach.
        rank: of this process.
        world_size: processes.
        backend: ``gloo``, or ``nccl`` beside it.
        host: of rank 0; empty: all ranks are on this machine.

    Raises:
        RunError: if a rank does not come.
    """

    def __init__(
        self, store: Store, rank: int, world_size: int, backend: str, host: str = ""
    ) -> None:
        self.rank, self.world_size, self.backend, self.run = rank, world_size, backend, 0
        os.environ.setdefault(_INTERFACE, _interface_to(host))
        here = PrefixStore(backend, store)
        self._vigil = Vigil(rank, here)
        _meet(here, rank, world_size)
        try:
            dist.init_process_group(
                _BACKENDS[backend], store=here, rank=rank, world_size=world_size, timeout=_FOR_EVER
            )
        except RuntimeError as error:
            raise RunError(
                f"rank {rank} cannot join over {backend}: {first_line(error)}"
            ) from error

    def open(self, seats: Seats, options: TransportOptions, rows: Tensor) -> ProcessGroup:
        """Open the transport of a run."""
        return ProcessGroup(seats, options, rows, self._vigil, self.run)

    def close(self) -> None:
        """Leave the group; one that is broken can only be left with the process."""
        self._vigil.close()
        if not self._vigil.is_broken:
            dist.destroy_process_group()


def _meet(store: Store, rank: int, world_size: int) -> None:
    """Wait for all ranks, so that those that do not come can be named."""
    keys = {other: f"here/{other}" for other in range(world_size)}
    store.set(keys[rank], "")
    deadline = monotonic() + meeting.JOIN_S
    for other, key in keys.items():
        while not store.check([key]):
            if monotonic() > deadline:
                missing = [one for one in keys if one >= other and not store.check([keys[one]])]
                raise RunError(f"ranks {missing} did not come within {meeting.JOIN_S:.0f} s")
            if rank == 0:
                interrupts.check()
            sleep(_LOOK_S)


def _interface_to(host: str) -> str:
    """Name the network interface by which this machine reaches another one."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    if not host:
        return loopback
    family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing
        mine = probe.getsockname()[0]
    addresses = psutil.net_if_addrs().items()
    found = [name for name, of_it in addresses if any(one.address == mine for one in of_it)]
    return found[0] if found else loopback
