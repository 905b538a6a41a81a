"""Equality of the bytes of rows on a GPU, in one pass over them: a Triton kernel."""

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from byzshield_exp.rows.digests import words_of
from byzshield_exp.rows.parallel import sent

_BLOCK = 2048  # entries: 16 per thread


@triton.jit
@no_type_check
def _compare(addresses, like, width, differ, members, BLOCK: tl.constexpr):
    group = tl.program_id(1)
    addresses += group * members
    differ += group * members
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    first = tl.load(addresses).to(like.dtype)
    head = tl.load(first + at, mask=inside, other=0)
    for member in range(1, members):
        # Rows known to differ are not read again. Other programs write this at any moment, so that
        # threads may read different values: it must not decide who comes to the sum's barriers.
        wanted = inside & (tl.load(differ + member) == 0)
        other = tl.load(addresses + member).to(like.dtype)
        words = tl.load(other + at, mask=wanted, other=0)
        count = tl.sum((wanted & (words != head)).to(tl.int32), 0)
        tl.store(differ + member, 1, mask=count > 0)


def differ_from_first(groups: Sequence[Sequence[Tensor]]) -> list[list[bool]]:
    """For each group of vectors, which of them have other bytes than the group's first.

    All vectors are of one type, size and device. All groups are compared by one launch, every
    vector is read once, and the GPU is waited for once. The first of a group does not differ.
    """
    held = [[row.detach().contiguous() for row in group] for group in groups]
    members = max(len(group) for group in held)
    padded = [group + group[:1] * (members - len(group)) for group in held]
    like = held[0][0]
    table = torch.tensor([[row.data_ptr() for row in group] for group in padded])
    differ = torch.zeros(table.shape, dtype=torch.int32, device=like.device)
    grid = triton.cdiv(like.numel(), _BLOCK), len(held)
    with torch.cuda.device_of(like):
        _compare[grid](
            sent(table, like.device), words_of(like), like.numel(), differ,
            members, BLOCK=_BLOCK, num_warps=4,
        )  # fmt: skip
    flags = differ.tolist()
    return [
        [bool(flag) for flag in of_group[: len(group)]]
        for of_group, group in zip(flags, held, strict=True)
    ]
