"""The default process group of torch.distributed: each run opens a transport on it."""

import os
import socket
import sys
import threading
from contextlib import suppress
from datetime import timedelta

import psutil
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store

from byzshield_exp.clusters import meeting
from byzshield_exp.clusters.process_group import ProcessGroup
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.transport import TransportOptions
from byzshield_exp.clusters.vigil import Vigil
from byzshield_exp.errors import RunError, first_line

BACKENDS = {"gloo": "gloo", "nccl": "cpu:gloo,cuda:nccl"}
_FOR_EVER = timedelta(days=30)  # a vigil ends a wait sooner, and says who was waited for
_LEAVE_S = 5.0
_INTERFACE = "GLOO_SOCKET_IFNAME"
_NCCL_ABORTS = "TORCH_NCCL_ASYNC_ERROR_HANDLING"


class ProcessGroupChannel:
    """A rank's end of the group; see :class:`~byzshield_exp.clusters.transport.Channel`.

    Args of the constructor:
        store: that all ranks have reached, and nobody else uses.
        rank: of this process.
        world_size: processes.
        backend: ``gloo``, or ``nccl`` beside it.
        host: of rank 0; empty: all ranks are on this machine.

    Raises:
        RunError: if they do not connect.
    """

    def __init__(
        self, store: Store, rank: int, world_size: int, backend: str, host: str = ""
    ) -> None:
        self.rank, self.world_size, self.backend, self.run = rank, world_size, backend, 0
        os.environ.setdefault(_INTERFACE, _interface_to(host))
        os.environ.setdefault(_NCCL_ABORTS, "0")  # rank 0 has a checkpoint to write first
        here = PrefixStore(backend, store)
        self._vigil = vigil = Vigil(rank, world_size, here)

        def join() -> None:
            dist.init_process_group(
                BACKENDS[backend], store=here, rank=rank, world_size=world_size, timeout=_FOR_EVER
            )

        try:
            vigil.patiently(join, meeting.JOIN_S)
            vigil.watch()
        except RuntimeError as error:
            raise RunError(
                f"rank {rank} cannot join over {backend}: {first_line(error)}"
            ) from error

    def open(self, seats: Seats, options: TransportOptions, rows: Tensor) -> ProcessGroup:
        """Open the transport of a run.

        Raises:
            RunError: if an earlier run has left the ranks out of step.
        """
        if self._vigil.is_broken:
            raise RunError("the ranks cannot go on after a run that failed in the middle of a step")
        return ProcessGroup(seats, options, rows, self._vigil, self.run)

    def close(self) -> None:
        """Leave the group.

        gloo may wait for ever for a rank that leaves at the same moment. So what takes longer than
        a few seconds is left to the end of the process, which is near.
        """
        leaving = threading.Thread(target=self._leave, daemon=True)
        leaving.start()
        leaving.join(_LEAVE_S)

    def _leave(self) -> None:
        with suppress(RuntimeError):
            self._vigil.close()
            if not self._vigil.is_broken:
                dist.destroy_process_group()


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
