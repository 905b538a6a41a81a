"""Profile a step: which kernels take the time, and how long the GPU has nothing to do.

    python scripts/profile_step.py                    # ResNet-18, K=25, r=5, b=750, TF32
    python scripts/profile_step.py --device cpu --width 8 --batch 25 --precision float32

The program's own trace (profile=true) of steps 3 to 5 is read: how much of these steps some kernel
or copy ran (the rest is idle), how many were launched, how often the host waited for the GPU (once
more at the end of each phase than in a run without a trace), the kernels with the most time, and
the longest gaps. On a CPU the outermost operations of torch stand for kernels.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")


def main() -> None:
    """Run the program, and print the profile."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", default="tf32")
    parser.add_argument("--attack", default="none")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=750, help="a multiple of 25")
    given = parser.parse_args()
    if given.device == "cpu" and hasattr(os, "sched_setaffinity"):
        # One file at a time, as on a GPU: torch traces the operations of the first thread alone.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "byzshield_exp", "approach=ramanujan_two", "K=25", "r=5", "q=3",
            f"attack={given.attack}", "dataset=synthetic", "dataset.channels=3", "dataset.size=32",
            "dataset.num_train=5000", "dataset.num_test=200", "network=resnet18",
            f"network.width={given.width}", f"batch_size={given.batch}", f"device={given.device}",
            f"precision={given.precision}", "steps=6", "eval_every=1000000",
            "checkpoint_every=1000000", "profile=true", f"output_dir={folder}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        (path,) = Path(folder).glob("*/profile/*.json")
        events = json.loads(path.read_text())["traceEvents"]
    lines = summarised(events)
    print(f"| profile of a step, {given.precision}, K=25 {given.attack} | {lines[0]} | | |")
    print("\n".join(lines[1:]))


def summarised(events: Sequence[Event], num_kernels: int = 12, num_gaps: int = 3) -> list[str]:
    """Summarise a trace of some steps: a line in words, then a table of kernels and gaps.

    Args:
        events: ``traceEvents`` of a trace; times in microseconds.
        num_kernels: how many kinds of kernels are listed.
        num_gaps: how many gaps are listed.

    Raises:
        ValueError: if the trace has no whole step.
    """
    whole = [event for event in events if event.get("ph") == "X"]
    steps = [
        event for event in whole
        if event["name"].startswith("ProfilerStep#") and event["cat"] == "user_annotation"
    ]  # fmt: skip
    if not steps:
        raise ValueError("the trace has no whole step")
    start, end = min(step["ts"] for step in steps), max(_end(step) for step in steps)
    on_gpu = [event for event in whole if event.get("cat") in _ON_GPU]
    kernels = sorted(
        (event for event in on_gpu or _outermost(whole) if start <= event["ts"] < end),
        key=lambda event: event["ts"],
    )
    calls = [
        event["name"] for event in whole
        if event.get("cat") in ("cuda_runtime", "cuda_driver") and start <= event["ts"] < end
    ]  # fmt: skip
    gaps = _gaps(kernels, start, end)
    idle, num_steps = sum(gap for gap, *_ in gaps), len(steps)
    head = (
        f"{(end - start) / num_steps / 1e3:,.1f} ms, {idle / (end - start):.0%} of it idle, "
        f"{len(kernels) / num_steps:,.0f} kernels and copies, "
        f"{sum('Launch' in name for name in calls) / num_steps:,.0f} launches, "
        f"{sum('Synchronize' in name for name in calls) / num_steps:,.0f} waits"
    )
    spent: dict[str, list[float]] = defaultdict(list)
    for kernel in kernels:
        spent[kernel["name"]].append(kernel["dur"])
    most = sorted(spent.items(), key=lambda item: -sum(item[1]))[:num_kernels]
    lines = [head, "ms/step  share  calls/step  kernel"]
    for name, taken in most:
        lines.append(
            f"{sum(taken) / num_steps / 1e3:7.2f}  {sum(taken) / (end - start):5.1%}"
            f"  {len(taken) / num_steps:10.1f}  {name[:80]}"
        )
    lines.append("gap ms   between")
    for gap, before, after in sorted(gaps, key=lambda item: -item[0])[:num_gaps]:
        lines.append(f"{gap / 1e3:7.2f}  {before[:40]} | {after[:40]}")
    return lines


def _end(event: Event) -> float:
    return float(event["ts"] + event["dur"])


def _outermost(events: Sequence[Event]) -> list[Event]:
    """Keep torch's operations that no other calls."""
    found, reached = [], defaultdict[Any, float](float)
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        if event.get("cat") == "cpu_op" and event["ts"] >= reached[event["tid"]]:
            found.append(event)
            reached[event["tid"]] = _end(event)
    return found


def _gaps(kernels: Sequence[Event], start: float, end: float) -> list[tuple[float, str, str]]:
    """List the times without a kernel: how long, and the names of those before and after it."""
    found, last, reached = [], "start", start
    for kernel in kernels:
        if kernel["ts"] > reached:
            found.append((kernel["ts"] - reached, last, kernel["name"]))
        if _end(kernel) > reached:
            last, reached = kernel["name"], _end(kernel)
    if end > reached:
        found.append((end - reached, last, "end"))
    return found


if __name__ == "__main__":
    main()
