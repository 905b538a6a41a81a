"""The form of a worker's message: a header of fixed size, then the gradient rows.

    header   HEADER_BYTES per rank + LOSS_BYTES per row:
             int64   magic, step, rank, first worker, k, l, d, bytes per number, files computed
             float64 seconds of data, compute, attack
             float32 the loss of each of the k * l rows
    payload  k * l rows of d numbers

Nothing here is unpickled: both parts are plain numbers of sizes known beforehand.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from byzshield_exp.errors import RunError

PHASES = ("data", "compute", "attack")
_MAGIC = 0x42595A31  # "BYZ1"
_INTEGERS = 9
HEADER_BYTES = 8 * (_INTEGERS + len(PHASES))
LOSS_BYTES = 4


@dataclass(frozen=True)
class Header:
    """What a rank says about its rows. ``files_computed`` counts from the start of the run."""

    step: int
    rank: int
    first_worker: int
    num_workers: int
    load: int
    size: int
    item_bytes: int
    files_computed: int
    seconds: dict[str, float]
    losses: list[float]


def header_bytes(num_rows: int) -> int:
    """Bytes of the header of a message of ``num_rows`` rows."""
    return HEADER_BYTES + LOSS_BYTES * num_rows


def pack(header: Header) -> UInt8[Tensor, " bytes"]:
    """A header as bytes."""
    integers = [
        _MAGIC, header.step, header.rank, header.first_worker, header.num_workers,
        header.load, header.size, header.item_bytes, header.files_computed,
    ]  # fmt: skip
    parts = (
        np.array(integers, dtype="<i8"),
        np.array([header.seconds.get(phase, 0.0) for phase in PHASES], dtype="<f8"),
        np.array(header.losses, dtype="<f4"),
    )
    return torch.frombuffer(
        bytearray(b"".join(part.tobytes() for part in parts)), dtype=torch.uint8
    )


def unpack(content: UInt8[Tensor, " bytes"], expected: Header) -> Header:
    """The header that was received.

    Raises:
        RunError: if its step, sender, shape or type is not the expected one.
    """
    raw = content.numpy().tobytes()
    magic, *integers = np.frombuffer(raw, dtype="<i8", count=_INTEGERS).tolist()
    seconds = np.frombuffer(raw, dtype="<f8", count=len(PHASES), offset=8 * _INTEGERS)
    losses = np.frombuffer(raw, dtype="<f4", offset=HEADER_BYTES)
    names = ("step", "rank", "first_worker", "num_workers", "load", "size", "item_bytes")
    got = Header(
        **dict(zip((*names, "files_computed"), integers, strict=True)),
        seconds=dict(zip(PHASES, seconds.tolist(), strict=True)),
        losses=losses.tolist(),
    )
    wrong = [
        f"{name}={getattr(got, name)} instead of {getattr(expected, name)}"
        for name in names
        if getattr(got, name) != getattr(expected, name)
    ]
    if magic != _MAGIC:
        wrong = ["no such header"]
    if wrong:
        raise RunError(f"rank {expected.rank} sent a message with {', '.join(wrong)}")
    return got
