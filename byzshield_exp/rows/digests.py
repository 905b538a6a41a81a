"""The bytes of gradient rows, and digests: 32 bytes that stand for a row, its step and its file.

A digest is BLAKE3 over a prefix of fixed size and the row's bytes. The prefix holds what the bytes
leave open (type, size), the step and file, so that a row cannot be replayed for others, and whether
the row is finite, so that the digest vouches for that too.
"""

import ctypes
import struct

import numpy as np
import torch
from blake3 import blake3
from jaxtyping import Shaped
from torch import Tensor

from byzshield_exp.rows.finite import is_finite

DIGEST_BYTES = 32
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_DOMAIN = b"byzshield row v1"
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PREFIX = struct.Struct("<16s 16s q q q ? 7x")  # domain, dtype, size, step, file, finite: 64 bytes


class RowHasher:
    """Compute the digest of a row whose parts arrive in order.

    Args:
        dtype: of the row.
        size: its entries.
        step: of the run, from 0.
        file: number of its file.
        finite: whether its sender says that it has neither NaN nor Inf.
    """

    def __init__(self, dtype: torch.dtype, size: int, step: int, file: int, finite: bool) -> None:
        name = str(dtype).removeprefix("torch.").encode()
        self._hasher = blake3(_PREFIX.pack(_DOMAIN, name, size, step, file, finite))
        self._left = size * dtype.itemsize

    def update(self, part: Tensor | np.ndarray | bytes | bytearray | memoryview) -> None:
        """Add the next entries; a large part lets other Python threads run.

        Raises:
            ValueError: if more bytes come than the row has.
        """
        if isinstance(part, Tensor):
            part = bytes_of(part)
        raw = part.data if isinstance(part, np.ndarray) else memoryview(part)
        if raw.nbytes > self._left:
            raise ValueError(f"{raw.nbytes} bytes of a row that lacks {self._left}")
        self._left -= raw.nbytes
        self._hasher.update(raw.cast("B") if raw.nbytes else b"")

    def digest(self) -> bytes:
        """Return the 32 bytes.

        Raises:
            ValueError: if bytes are missing.
        """
        if self._left:
            raise ValueError(f"{self._left} bytes of the row are missing")
        return self._hasher.digest()


def row_digest(
    row: Shaped[Tensor, " d"], step: int, file: int, finite: bool | None = None
) -> bytes:
    """The digest of a row, on one thread: see :class:`RowHasher`.

    Args:
        row: one gradient; from a GPU it is copied to the CPU.
        step: of the run, from 0.
        file: number of its file.
        finite: whether it has neither NaN nor Inf; None: find out.
    """
    row = row.detach().cpu()
    finite = is_finite(row) if finite is None else finite
    hasher = RowHasher(row.dtype, row.numel(), step, file, finite)
    hasher.update(row)
    return hasher.digest()


def equal_memory(first: int, second: int, count: int) -> bool:
    """Whether ``count`` bytes at two addresses are equal; other Python threads may run.

    libc's ``memcmp`` is three times as fast as ``torch.equal``.
    """
    return not _memcmp(first, second, count)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two vectors of one type, size and device have the same bytes; -0.0 is not 0.0."""
    one, other = one.contiguous(), other.contiguous()
    if one.device.type == "cpu":
        return equal_memory(one.data_ptr(), other.data_ptr(), one.numel() * one.element_size())
    return torch.equal(words_of(one), words_of(other))


def words_of(row: Tensor) -> Tensor:
    """The bits of each entry as a whole number of its size; not copied."""
    return row.view(_WORDS[row.element_size()])


def bytes_of(row: Tensor) -> np.ndarray:
    """The bytes of a tensor on the CPU; not copied where its entries lie side by side."""
    flat = row.detach().flatten()
    if flat.stride(0) != 1:
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy()
