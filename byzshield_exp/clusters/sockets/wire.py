"""The form of a message: a header of fixed size that says what follows, then plain bytes.

Nothing is unpickled. A receiver reads the header first and decides from it, before the payload is
read, whether and where to put it.
"""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

import torch

_FORM = struct.Struct("<I4B5IqQf")  # the fields of Header in order, after the magic number
_MAGIC = 0x42595A32  # "BYZ2"
HEADER_BYTES = _FORM.size
DTYPES = {torch.float32: 1, torch.float64: 2, torch.bfloat16: 3, torch.float16: 4}


class Kind(IntEnum):
    """What a message is."""

    HELLO = 1  # worker: the secret of the group
    CHECK = 2  # worker: the digest of file 0 and a few words, before the first step
    DIGEST = 3  # worker: the digest of one replica
    ROW = 4  # worker: one replica, d numbers
    DONE = 5  # worker: all replicas of a step were sent; seconds and counts
    SHARE = 7  # server: a tensor that all ranks have the size of
    ORDER = 8  # server: the parameters of a step
    FETCH = 9  # server: send the row of this worker and file
    END = 10  # server: the run is over
    PLACE = 11  # worker: where it listens for other workers
    PLACES = 12  # server: where all listen, and the secret between each two
    CONNECTED = 13  # worker: with the other workers
    POSTS = 14  # worker: what its ids post in a round
    BUNDLE = 15  # server: what all have posted
    VECTOR = 16  # worker, also to another one: float32 numbers
    WITHHELD = 17  # worker, also to another one: in place of a vector


BETWEEN_PEERS = frozenset({Kind.PLACE, Kind.CONNECTED, Kind.POSTS, Kind.VECTOR, Kind.WITHHELD})
FROM_WORKER = BETWEEN_PEERS | {Kind.HELLO, Kind.CHECK, Kind.DIGEST, Kind.ROW, Kind.DONE}


class Rejected(Exception):
    """A message that is not what it should be.

    Attributes:
        is_fatal: what follows it cannot be understood either.
    """

    def __init__(self, reason: str, is_fatal: bool = False) -> None:
        super().__init__(reason)
        self.is_fatal = is_fatal


def expect(name: str, got: int, wanted: int) -> None:
    """Compare a field of a header.

    Raises:
        Rejected: if it is another one.
    """
    if got != wanted:
        raise Rejected(f"{name}={got} instead of {wanted}")


@dataclass(frozen=True)
class Header:
    """What a message says about itself.

    Attributes:
        kind: what it is.
        run: counts the runs of a group.
        sender: rank.
        worker: whose replica; of a vector, which one of its sender in this swap.
        file: of which file; between peers, the number of the round or swap in the run.
        step: of which step.
        length: bytes that follow.
        dtype: code of :data:`DTYPES`, 0 where there are no numbers.
        finite: whether the replica has neither NaN nor Inf.
        loss: mean loss of the file, NaN where it was not computed.
    """

    kind: Kind
    run: int
    sender: int
    worker: int = 0
    file: int = 0
    step: int = 0
    length: int = 0
    dtype: int = 0
    finite: bool = False
    loss: float = float("nan")

    def pack(self) -> bytes:
        """The header as :data:`HEADER_BYTES` bytes."""
        return _FORM.pack(
            _MAGIC, self.kind, self.dtype, self.finite, 0, self.run, self.sender, self.worker,
            self.file, 0, self.step, self.length, self.loss,
        )  # fmt: skip

    def carrying(self, length: int) -> "Header":
        """The same with a payload of ``length`` bytes."""
        return replace(self, length=length)


def unpack(content: bytes | bytearray | memoryview) -> Header:
    """Read a header; whatever the bytes are, there is no other error.

    Raises:
        Rejected: if there is no header, fatal.
    """
    magic, kind, dtype, finite, zero, *numbers, step, length, loss = _FORM.unpack(content)
    run, sender, worker, file, also_zero = numbers
    is_known = kind in set(Kind) and dtype in {0, *DTYPES.values()} and finite in (0, 1)
    if magic != _MAGIC or not is_known or zero or also_zero:
        raise Rejected("bytes that are no message", is_fatal=True)
    return Header(
        Kind(kind), run, sender, worker, file, step, length, dtype, bool(finite), loss
    )  # fmt: skip
