"""What the bits of a gradient depend on, apart from the run: processor, versions, variables."""

import os
import platform
import socket
from importlib.metadata import version
from pathlib import Path

import torch

BIT_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
_PACKAGES = ("torch", "numpy", "byzshield_exp")


def host_name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def bit_entries(device: str) -> dict[str, str]:
    """List what changes bits, by name: processor, threads, versions, GPU, environment variables.

    Args:
        device: ``cpu`` or ``cuda``, of the gradients.
    """
    entries = {
        "cpu": cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        **{name: version(name) for name in _PACKAGES},
        **{name: os.environ.get(name, "not set") for name in BIT_VARIABLES},
    }
    if device == "cuda" and torch.cuda.is_available():
        entries |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }
    return entries
