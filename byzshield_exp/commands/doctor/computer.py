"""Processor, threads and limits of this machine, and the bits of a gradient."""

import os
import resource
import shutil
from hashlib import sha256
from pathlib import Path

from byzshield_exp.commands.doctor.finding import Finding, worst

_FILES = 1024  # open at a time: enough for any run
_SHM = 64 << 20  # bytes
_DIGITS = 16  # of a digest that is printed


def processor() -> Finding:
    """Name the processor and the instruction set that torch uses: both decide the bits."""
    import torch

    from byzshield_exp.clusters.fingerprint import BIT_VARIABLES, cpu_model

    level = torch.backends.cpu.get_cpu_capability()
    given = [f"{name}={os.environ[name]}" for name in BIT_VARIABLES if name in os.environ]
    said = [f"{cpu_model()}, torch takes {level}", *([", ".join(given)] if given else [])]
    notes = ["set the same on all machines of a run: they change the bits"] if given else []
    return worst("processor", said, notes, [])


def threads() -> Finding:
    """Count the cores of the machine, of this process, and of its control group."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    limit = cgroup_cores(Path("/sys/fs/cgroup"), _own_cgroup())
    given = os.environ.get("OMP_NUM_THREADS")
    said = [f"{cores} cores, {usable} usable"]
    said += [f"the control group has time on {limit:.3g}"] if limit is not None else []
    said += [f"OMP_NUM_THREADS={given} (a run sets threads= itself)"] if given else []
    notes = []
    if limit is not None and limit < usable:
        notes.append("a run takes all usable cores and is slowed down: start it under taskset")
    return worst("threads", said, notes, [])


def cgroup_cores(root: Path, own: str) -> float | None:
    """Return how many cores' time the control groups allow; None: no limit.

    psutil does not read control groups.

    Args:
        root: where the control groups are mounted.
        own: the group of this process, below ``root``; the limits of its parents hold as well.
    """
    folders = [root, *(root / part for part in _beginnings(own)), root / "cpu"]
    limits = []
    for folder in folders:
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            limits.append(quota / period)
    return min(limits, default=None)


def _beginnings(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _quota(folder: Path) -> tuple[int, int]:
    try:
        if (folder / "cpu.max").exists():  # version 2
            quota, period = (folder / "cpu.max").read_text().split()
            return (0, 0) if quota == "max" else (int(quota), int(period))
        return (
            int((folder / "cpu.cfs_quota_us").read_text()),
            int((folder / "cpu.cfs_period_us").read_text()),
        )
    except (OSError, ValueError):
        return 0, 0


def _own_cgroup() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "")


def gradient() -> Finding:
    """Compute a digest of one gradient: machines that differ here cannot vote by bytes."""
    digest = gradient_digest()
    return Finding("gradient", "ok", f"{digest} (LeNet, one thread; equal on equal machines)")


def gradient_digest() -> str:
    """Return the first digits of the SHA-256 of one file's gradient, on made-up pictures."""
    import torch

    from byzshield_exp.datasets import Batches, synthetic
    from byzshield_exp.networks import flatten, lenet
    from byzshield_exp.streams import Stream, generator, torch_seeded
    from byzshield_exp.training.gradients import TrueGradients

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = synthetic(num_train=40, num_test=10, size=28)
        with torch_seeded(generator(0, Stream.NETWORK)):
            network = lenet(dataset.shape, dataset.num_classes).train()
        flatten(network)
        truth = TrueGradients(network, dataset, Batches(40, 20, 1, seed=0), 1)
        row = truth.message(0).joined.numpy().tobytes()
    finally:
        torch.set_num_threads(before)
    return sha256(row).hexdigest()[:_DIGITS]


def open_files() -> Finding:
    """Check how many files and connections a process may open: a server has one per rank."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"{soft:,} open files for a process (at most {hard:,})"
    if soft == resource.RLIM_INFINITY or soft >= _FILES:
        return Finding("files", "ok", said)
    advice = f"ulimit -n {min(hard, 65536)}: the server needs one for each rank, and about 50"
    return Finding("files", "problem" if soft < _FILES // 4 else "note", said, advice)


def shared_memory() -> Finding:
    """Check /dev/shm, where parallel launchers and NCCL keep what processes share."""
    path = Path("/dev/shm")
    if not path.is_dir():
        advice = "mount a tmpfs there: launchers with several processes need it"
        return Finding("shm", "note", "/dev/shm is missing", advice)
    free = shutil.disk_usage(path).free
    said = f"/dev/shm has {free / 2**20:,.0f} MiB free"
    if free < _SHM or not os.access(path, os.W_OK):
        return Finding("shm", "note", said, "give it more (docker run --shm-size=1g)")
    return Finding("shm", "ok", said)
