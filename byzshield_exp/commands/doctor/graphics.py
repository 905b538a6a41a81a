"""GPUs: which ones torch sees, whether each computes correctly, what a run would do there."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from byzshield_exp.commands.doctor.finding import Finding, worst


def gpus() -> Finding:
    """List the GPUs that torch sees, and check whether each computes correctly."""
    import torch

    driver = _driver()
    if not torch.cuda.is_available():
        if driver is None and not Path("/dev/nvidia0").exists():
            return Finding("gpus", "ok", "none: device=cpu")
        what = f"torch {torch.__version__} sees none, although there is a driver ({driver})"
        advice = "install the torch build for this driver's CUDA, or ask for access to the device"
        return Finding("gpus", "problem", what, advice)
    said = [f"CUDA {torch.version.cuda}, driver {driver or 'unknown'}"]
    names: set[str] = set()
    problems: list[str] = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        names.add(about.name)
        said.append(f"{number}: {about.name}, {about.total_memory / 2**30:.1f} GiB")
        wrong = _product(f"cuda:{number}")
        problems += [f"GPU {number}: {wrong}"] if wrong else []
    notes = ["GPUs of different types have different bits: vote=tolerant"] if len(names) > 1 else []
    return worst("gpus", said, notes, problems)


class Card(NamedTuple):
    """A GPU that is there.

    Attributes:
        free: bytes.
        total: bytes.
        capability: of computation; the second number does not matter here.
        has_kernels: whether kernels of our own work there.
    """

    free: int
    total: int
    capability: tuple[int, int]
    has_kernels: bool


def gpu_run() -> Finding:
    """Say what a run with ``device=cuda`` would do on this machine."""
    import torch
    from torch.distributed import is_nccl_available

    from byzshield_exp.rows.gpu import has_kernels

    cards: list[Card] = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        with torch.cuda.device(number):  # Triton starts kernels on the current one
            works = has_kernels(torch.device("cuda", number))
            capability = torch.cuda.get_device_capability()
            cards.append(Card(*torch.cuda.mem_get_info(), capability, works))
    return what_a_run_does(cards, is_nccl_available())


def what_a_run_does(cards: Sequence[Card], has_nccl: bool) -> Finding:
    """Say what a run does on these GPUs; ``chosen_backend`` of ``clusters`` decides the backend.

    Args:
        cards: in their order; none: there is no GPU.
        has_nccl: whether it is part of torch.
    """
    if not cards:
        return Finding("gpu_run", "ok", "no GPU: device=cpu")
    free = ", ".join(f"{card.free / 2**30:.1f} of {card.total / 2**30:.1f}" for card in cards)
    old = [f"GPU {at}" for at, card in enumerate(cards) if card.capability < (8, 0)]
    failing = [f"GPU {at}" for at, card in enumerate(cards) if not card.has_kernels]
    said = [
        f"{free} GiB free",
        "precision float32" if old else "precision float32, tf32, bf16",
        "files as CUDA graphs",
        "Triton kernels fail" if failing else "Triton kernels work",
    ]
    count = len(cards)
    if has_nccl:
        one = "one process" if count == 1 else f"up to {count} processes"
        said.append(f"torchrun with {one}: rows over nccl, more processes: gloo")
    else:
        said.append("torchrun: rows over gloo, as this torch has no NCCL")
    said.append("cluster=processes without torchrun: over sockets, through the host")
    notes = []
    if old:
        lack = "tf32 and bf16 have no hardware there, so float32 is as fast"
        notes.append(f"{', '.join(old)}: {lack}")
    if failing:
        slow = "Triton fails, a warning says why: votes and medians take several times as long"
        notes.append(f"{', '.join(failing)}: {slow}")
    return worst("gpu_run", said, notes, [])


def _product(device: str) -> str:
    """Say what is wrong with a product of whole numbers, which is exact; empty if nothing is."""
    import torch

    try:
        left = torch.arange(64.0 * 64).view(64, 64).remainder(7)
        right = left.to(device) @ left.to(device).T
        return "" if torch.equal(right.cpu(), left @ left.T) else "a product is wrong"
    except RuntimeError as error:
        return f"a product fails: {str(error).splitlines()[0]}"


def _driver() -> str | None:
    """Ask nvidia-smi for the driver's version."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None
