"""Whether kernels of our own run on a GPU; without them torch does the same, more slowly."""

from functools import lru_cache

import torch

from byzshield_exp.notices import warn


@lru_cache(maxsize=16)
def has_kernels(device: torch.device) -> bool:
    """Whether Triton works for a device; the first call tries it, and warns if it fails.

    Triton comes with torch for CUDA. It needs a C compiler and Python's headers.
    """
    if device.type != "cuda":
        return False
    try:
        from byzshield_exp.rows.gpu_equality import differ_from_first

        zero, one = torch.zeros(1, device=device), torch.ones(1, device=device)
        works = differ_from_first([[zero, one, zero]]) == [[False, True, False]]
        why = "a comparison is wrong"
    except Exception as error:  # whatever its compiler, the linker or the driver says
        works, why = False, f"{type(error).__name__}: {error}".splitlines()[0]
    if not works:
        warn(f"device={device}: Triton fails, votes and medians take several times as long: {why}")
    return works
