"""GPUs: which ones torch sees, and whether each computes correctly."""

import shutil
import subprocess
from pathlib import Path

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
