"""Joining and leaving a process group, and telling all ranks a text."""

import os
import socket
from datetime import timedelta

import torch
import torch.distributed as dist

_TIMEOUT = timedelta(minutes=30)  # for collectives, which wait while the server evaluates


def join(rendezvous: tuple[str, int, int] | None = None) -> None:
    """Join the process group.

    Args:
        rendezvous: a file on this machine, rank and world size; None means torchrun's
            environment. With a file no port is opened but gloo's own, on the loopback interface.
    """
    if rendezvous is None:
        dist.init_process_group("gloo", timeout=_TIMEOUT)
        return
    path, rank, world_size = rendezvous
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    store = dist.FileStore(path, world_size)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT)


def leave() -> None:
    """Leave the process group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast_text(text: str | None) -> str:
    """Send a text from rank 0 to all; every rank returns it. Bytes, nothing pickled."""
    content = torch.frombuffer(bytearray((text or "\n").encode()), dtype=torch.uint8)
    size = torch.tensor([len(content)])
    dist.broadcast(size, src=0)
    if dist.get_rank() != 0:
        content = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(content, src=0)
    return bytes(content.numpy()).decode().strip()
