"""Measure time and memory of the server's work on gathered replicas: vote, deliver, aggregate.

    python scripts/bench_server.py                             # f = 25, r = 5, ResNet-18: 6.7 GB
    python scripts/bench_server.py --dimension 431080 --threads 1
    python scripts/bench_server.py --lies 5                    # the first replica of 5 files lies

Every replica has its own memory and equals the others of its file. The first ones are the rows of
one matrix, as in a server that receives them in place.

    vote       labels, which classes are finite, winners; by digest: hashes of the f rows that
               arrive, and labels
    deliver    copies winners that are not in their row of the matrix there
    aggregate  the rule on the matrix

Seconds are medians of calls after a first, uncounted one; CPU seconds are those of all threads; the
memory is the peak above the inputs. The yardstick is numpy: ``array_equal`` of each replica with
its file's first one, then ``median(axis=0)`` of the first ones; the ratio is numpy's seconds
divided by ours. "copied" is the bytes of all replicas divided by our seconds, as a share of the
bytes per second that a copy of the matrix moves (each counted once) with as many threads.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Seconds of ByzShield's research code at r = 3 for vote and rule; its vote alone takes 1.0.
RESEARCH = {"median": "6.9 (8.7 GiB)", "multi_krum": "12.0", "bulyan": "15.9"}
STAGES = ("vote", "deliver", "aggregate")


def main() -> None:
    """Measure all stages, and print them as markdown."""
    options = _options()
    import torch

    from byzshield_exp import aggregators
    from byzshield_exp.aggregators import columns

    torch.set_num_threads(options.threads)
    columns.compile_now()  # the first time only; later loaded from the disk
    rows, replicas = _inputs(options)
    total = options.replication * rows.nbytes
    copied = _copied_per_second(rows, options.repeats)
    print(
        f"\nf = {len(rows)}, r = {options.replication}, d = {options.dimension:,}, "
        f"{options.threads} threads; replicas {total / 1e9:.2f} GB, copy {copied / 1e9:.1f} GB/s\n"
    )
    print("| | vote | deliver | aggregate | all | CPU | MiB | ratio | copied | research code |")
    print("|---|" + "---:|" * 9)
    plain = _measured(_numpy(rows, replicas), options.repeats)
    for name, research in RESEARCH.items():
        for file in replicas[: options.lies]:
            file[0][-1] += 1
        rule = getattr(aggregators, name)
        found = _measured(_ours(rows, replicas, rule, options.num_corrupt), options.repeats)
        ratio = f"{plain['all'] / found['all']:.1f}" if name == "median" else ""
        share = f"{total / found['all'] / copied:.0%}"
        print(_line(name, found, ratio, share, research), flush=True)
    found = _measured(_by_digest(rows, options.replication), options.repeats)
    print(_line("digest, median", found, f"{plain['all'] / found['all']:.1f}"))
    print(_line("numpy, median", plain))


def _inputs(options: argparse.Namespace) -> tuple[Any, list[list[Any]]]:
    """Make the matrix, and for each file its row of the matrix with copies of it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(options.files, options.dimension, generator=generator)
    return rows, [[row, *(row.clone() for _ in range(options.replication - 1))] for row in rows]


def _copied_per_second(rows: Any, repeats: int) -> float:
    target = rows.clone()
    return float(rows.nbytes / _seconds(lambda: target.copy_(rows), repeats)[0])


def _ours(
    rows: Any, replicas: list[list[Any]], rule: Callable[..., Any], num_corrupt: int
) -> tuple[Callable[[], Any], ...]:
    from byzshield_exp.votes import is_finite, majority, winners

    places: list[int] = []

    def vote() -> None:
        labels = majority(replicas)
        finite = is_finite(replicas, labels)
        places[:] = winners(labels, finite, len(replicas[0]) // 2 + 1).tolist()

    def deliver() -> None:
        for row, file, place in zip(rows, replicas, places, strict=True):
            if place != 0:
                row.copy_(file[place])

    return vote, deliver, lambda: rule(rows, num_corrupt)


def _by_digest(rows: Any, replication: int) -> tuple[Callable[[], Any], ...]:
    from byzshield_exp.aggregators import median
    from byzshield_exp.rows.digests import row_digest
    from byzshield_exp.votes import digest

    def vote() -> None:  # in one thread, as the server hashes rows while they arrive
        digest([[row_digest(row, 0, file, True)] * replication for file, row in enumerate(rows)])

    return vote, lambda: None, lambda: median(rows)


def _numpy(rows: Any, replicas: list[list[Any]]) -> tuple[Callable[[], Any], ...]:
    import numpy as np

    files = [[row.numpy() for row in file] for file in replicas]
    return (
        lambda: [np.array_equal(row, file[0]) for file in files for row in file[1:]],
        lambda: None,
        lambda: np.median(rows.numpy(), axis=0),
    )


def _measured(stages: tuple[Callable[[], Any], ...], repeats: int) -> dict[str, float]:
    """Measure the seconds of each stage, and the peak memory of all above the inputs in MiB."""
    before = _reset_peak()
    found = [_seconds(stage, repeats) for stage in stages]
    walls, cpus = zip(*found, strict=True)
    peak = (_status("VmHWM") - before) / 2**20
    return {
        **dict(zip(STAGES, walls, strict=True)), "all": sum(walls), "CPU": sum(cpus), "peak": peak
    }  # fmt: skip


def _seconds(stage: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the median wall and CPU seconds of a stage."""
    stage()
    found = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        stage()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = zip(*found, strict=True)
    return statistics.median(walls), statistics.median(cpus)


def _line(name: str, found: dict[str, float], *more: str) -> str:
    seconds = [f"{found[key]:.3f}" for key in (*STAGES, "all", "CPU")]
    cells = [name, *seconds, f"{found['peak']:,.0f}", *more, *[""] * (3 - len(more))]
    return f"| {' | '.join(cells)} |"


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=25)
    parser.add_argument("--replication", type=int, default=5)
    parser.add_argument("--dimension", type=int, default=11_173_962)
    parser.add_argument("--num-corrupt", type=int, default=5)
    parser.add_argument("--lies", type=int, default=0, help="files whose first replica is wrong")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


if __name__ == "__main__":
    main()
