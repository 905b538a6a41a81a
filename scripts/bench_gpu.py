"""Measure a GPU's seconds per step, by phase, beside plain SGD on the same samples.

    python scripts/bench_gpu.py                       # ResNet-18, K=25, r=5, b=750; K=63; processes
    python scripts/bench_gpu.py --precisions tf32 --only "K=25 none,server"
    python scripts/bench_gpu.py --device cpu --steps 3 --width 8 --batch 25 --large-batch 81

Each row is a run of the program on synthetic pictures of CIFAR's shape: ByzShield's Ramanujan
placement for K=25, and Latin squares over GF(9) for K=63 with r=7; without an attack and with ALIE;
in one process, and with three worker processes on the same GPU. Seconds are medians over the steps
after the first three; a phase ends when the GPU has finished it (profile=metrics). The floor is
plain SGD with the same number of samples, device and precision, channels last, in one batch. The
ByzShield paper's step takes 23 s on its CPU machines (Figure 12). The last rows are the server's
work alone: vote and coordinate-wise median of 25 rows, beside a copy of these rows (bytes read and
written).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from byzshield_exp import networks
from byzshield_exp.aggregators import median as coordinate_wise_median
from byzshield_exp.votes import majority

WARMUP = 3
SERVER = "server"
# At most so many times plain SGD's seconds; at least so much of a copy's bandwidth.
GOALS = {"K=25 none": 1.5, "K=25 alie": 1.7}
BANDWIDTH_GOAL = 0.6
K25 = ("approach=ramanujan_two", "K=25", "r=5", "q=3")
K63 = ("approach=mols", "K=63", "r=7", "q=5")


def main() -> None:
    """Measure all runs, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precisions", nargs="*", default=["float32", "tf32", "bf16"])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=750, help="with K=25; a multiple of 25")
    parser.add_argument("--large-batch", type=int, default=810, help="with K=63; one of 81")
    parser.add_argument("--only", default="", help="rows, separated by commas; default all")
    given = parser.parse_args()
    if given.device == "cpu":
        given.precisions = [name for name in given.precisions if name != "tf32"]
    small, large = f"batch_size={given.batch}", f"batch_size={given.large_batch}"
    processes = ("cluster=processes", "cluster.num_processes=4")
    runs = {
        "K=25 none": (given.batch, (*K25, "attack=none", small)),
        "K=25 alie": (given.batch, (*K25, "attack=alie", small)),
        "K=63 none": (given.large_batch, (*K63, "attack=none", large)),
        "K=25 none in 4 processes": (given.batch, (*K25, "attack=none", small, *processes)),
    }
    chosen = given.only.split(",") if given.only else [*runs, SERVER]
    if unknown := set(chosen) - {*runs, SERVER}:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join([*runs, SERVER])}")
    for precision in given.precisions:
        floors: dict[int, float] = {}
        for name in [name for name in runs if name in chosen]:
            batch, overrides = runs[name]
            if batch not in floors:
                floors[batch] = _plain(given, precision, batch)
                torch.cuda.empty_cache()  # the runs are other processes on the same card
                _print(f"{precision}, plain SGD, b={batch}", f"{floors[batch]:.4f} s")
            _print_run(f"{precision}, {name}", _run(given, precision, overrides), floors[batch])
    if SERVER in chosen:
        _server(given.device, sum(p.numel() for p in _network(given).parameters()))


def _print(what: str, figure: str, goal: str = "", is_met: bool | None = None) -> None:
    """Print a row of the table."""
    verdict = {None: "", True: "met", False: "missed"}[is_met]
    print(f"| {what} | {figure} | {goal} | {verdict} |", flush=True)


def _print_run(what: str, found: dict[str, float] | str, floor: float) -> None:
    bound = GOALS.get(what.partition(", ")[2])
    goal = "" if bound is None else f"<= {bound}"
    if isinstance(found, str):
        _print(what, found, goal, None if bound is None else False)
        return
    total = found.pop("total")
    figure, is_met = f"{total:.4f} s, {total / floor:.2f} of plain SGD", None
    if bound is not None:
        is_met = total <= bound * floor
    _print(what, figure, goal, is_met)
    print(f"  {'  '.join(f'{phase} {value:.4f}' for phase, value in found.items())}", flush=True)


def _network(given: argparse.Namespace) -> torch.nn.Module:
    return networks.resnet18((3, 32, 32), 10, width=given.width).to(given.device)


def _plain(given: argparse.Namespace, precision: str, batch: int) -> float:
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    network = _network(given).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    pictures = torch.randn(batch, 3, 32, 32, device=given.device)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), device=given.device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(given.device, torch.bfloat16, enabled=precision == "bf16"):
            loss = cross_entropy(network(pictures), labels)
        loss.backward()
        optimizer.step()

    return _seconds(step, given.device, given.steps)


def _run(
    given: argparse.Namespace, precision: str, overrides: tuple[str, ...]
) -> dict[str, float] | str:
    """Return the seconds of each phase of the server's steps, or the error."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "byzshield_exp", "dataset=synthetic", "dataset.channels=3",
             "dataset.size=32", "dataset.num_train=5000", "dataset.num_test=200",
             "network=resnet18", f"network.width={given.width}", f"device={given.device}",
             f"precision={precision}", "profile=metrics", "eval_every=1000000",
             f"steps={given.steps + WARMUP}", "checkpoint_every=1000000", f"output_dir={folder}",
             *overrides],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            return (done.stderr.splitlines() or ["no message"])[-1]
        (path,) = Path(folder).glob("*/metrics.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()][WARMUP:]
    seconds: list[dict[str, Any]] = [line["seconds"] for line in lines]
    return {
        phase: median(one.get(phase, 0.0) for one in seconds) for phase in ("total", *seconds[0])
    }


def _server(device: str, size: int) -> None:
    rows = torch.randn(25, size, device=device)
    copies = [[row, *(row.clone() for _ in range(4))] for row in rows]
    target = torch.empty_like(rows)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "vote": (lambda: majority(copies), 5 * rows.nbytes),
        "median": (lambda: coordinate_wise_median(rows), rows.nbytes),
    }
    taken = _seconds(lambda: target.copy_(rows), device, 5)
    copied = 2 * rows.nbytes / taken
    _print(f"copy of 25 rows of {size:,}", f"{taken:.4f} s, {copied / 1e9:,.0f} GB/s")
    for name, (work, moved) in works.items():
        taken = _seconds(work, device, 5)
        speed = moved / taken
        figure = f"{taken:.4f} s, {speed / 1e9:,.0f} GB/s, {speed / copied:.0%} of the copy's"
        _print(
            f"{name} of 25 rows{', r=5' if name == 'vote' else ''}", figure,
            f">= {BANDWIDTH_GOAL:.0%}", speed >= BANDWIDTH_GOAL * copied,
        )  # fmt: skip


def _seconds(work: Callable[[], object], device: str, times: int) -> float:
    taken = []
    for _ in range(times + WARMUP):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return median(taken[WARMUP:])


if __name__ == "__main__":
    main()
