"""Measure a training step: seconds, CPU, bytes, memory; beside plain SGD and the papers' code.

    python scripts/bench_step.py                       # LeNet, a process per worker
    python scripts/bench_step.py --votes majority --only mols,local --repeats 1
    python scripts/bench_step.py --resnet              # large rows: bytes and memory, up to 18 GB
    python scripts/bench_step.py --only mols --backends sockets,gloo      # each against the first
    python scripts/bench_step.py --peers               # BTARD's checks over the butterfly alone

Every measurement is a run of the program (``profile=metrics``) or of plain SGD in new processes
(Linux only). In each repeat every variant has its turn, so that noise on the machine affects all
alike. Figures are medians over repeats of medians over the steps after the warm-up.

The floor is plain SGD on the same 750 samples in torch's quickest layout, channels last: fetch the
batch, forward, backward and torch's step.
Wall seconds are divided by its wall seconds on all cores, CPU seconds by its CPU seconds in one
thread. If a process plays one worker, every sample is computed r times: both floors count r times.
"CPU by difference" is the CPU time of a long run minus that of a short one, per step. It needs no
profile but a second run (``--difference``; always if there is no profile). Phases are CPU seconds
over all processes, and wall seconds of the slowest. The papers' figures are those of the ByzShield
and DETOX code on two cores.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

BATCH = 750
FILES = 25  # of Ramanujan case 2 with K=25
LENET: tuple[str, ...] = (
    "dataset=synthetic", "dataset.size=28", "dataset.num_train=7500", "dataset.num_test=500",
    "network=lenet", f"batch_size={BATCH}", "q=3", "adversary=worst_case",
)  # fmt: skip
RESNET: tuple[str, ...] = (
    "dataset=synthetic", "dataset.channels=3", "dataset.size=32", "dataset.num_train=200",
    "dataset.num_test=20", "network=resnet18", "network.norm=group", "q=3", "adversary=worst_case",
    "approach=ramanujan_two", "K=25", "r=5",
)  # fmt: skip
PEERS: tuple[str, ...] = (
    "dataset=synthetic", "dataset.size=28", "dataset.num_train=7680", "dataset.num_test=500",
    "network=l46_net", "batch_size=1536", "approach=btard", "K=6", "q=0", "attack=none",
)  # fmt: skip
_CORES = len(os.sched_getaffinity(0))
_NEVER = 1_000_000
_SUBREAPER = 36  # Linux: orphaned descendants become this process's children
_MB, _MIB = 1e6, 2**20

Figures = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """What to run.

    Attributes:
        overrides: overrides of the configuration.
        replicas: how often the run computes every sample.
        research: seconds and CPU seconds per step of the papers' code, where known.
    """

    overrides: tuple[str, ...]
    replicas: int = 3
    research: tuple[float | None, float | None] = (None, None)


_MOLS = ("approach=mols", "cluster=processes")
VARIANTS = {
    "mols": Variant((*_MOLS, "attack=none"), 3, (1.54, 3.03)),
    "mols reversed_gradient": Variant((*_MOLS, "attack=reversed_gradient")),
    "mols alie": Variant((*_MOLS, "attack=alie"), 3, (1.74, None)),
    "mols bulyan": Variant((*_MOLS, "attack=none", "aggregator=bulyan"), 3, (1.71, None)),
    "local": Variant(("approach=mols", "cluster=local", "attack=none"), 1),
    "local alie": Variant(("approach=mols", "cluster=local", "attack=alie"), 1),
    "baseline": Variant(
        ("approach=baseline", "cluster=processes", "attack=none"), 1, (0.43, 0.82)
    ),
    "detox": Variant(
        ("approach=detox", "aggregator=multi_krum", "cluster=processes", "attack=none"),
        3, (0.80, None),
    ),
    "ramanujan_two": Variant(
        ("approach=ramanujan_two", "K=25", "r=5", "cluster=processes", "attack=none"),
        5, (2.40, 4.68),
    ),
}  # fmt: skip
RESNET_VARIANTS = {
    f"{place} {attack}": Variant((*cluster, f"attack={attack}"))
    for place, cluster in {
        "local": ("cluster=local",),
        "processes": ("cluster=processes", "cluster.num_processes=4"),
    }.items()
    for attack in ("none", "alie")
}

PEERS_VARIANTS = {
    f"{place} {ban}": Variant((*cluster, f"protocol.ban={ban}"))
    for place, cluster in {
        "local": ("cluster=local",),
        "sockets": ("cluster=processes", "cluster.num_processes=7", "cluster.backend=sockets"),
        "gloo": ("cluster=processes", "cluster.num_processes=7", "cluster.backend=gloo"),
    }.items()
    for ban in ("off", "validate")
}


def main() -> None:
    """Measure all variants in turn, then print; or be a run of plain SGD."""
    options = _options()
    if options.floor:
        print(json.dumps(_plain_sgd(options)))
        return
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    variants = _chosen(options)
    runs: dict[str, list[Figures]] = {name: [] for name in variants}
    floors: list[dict[int, Figures]] = []
    for _ in range(options.repeats):
        if not (options.resnet or options.peers):
            floors.append({threads: _floor(threads, options) for threads in (1, _CORES)})
        for name, variant in variants.items():
            figures = _measure(variant, options)
            if floors:
                figures |= _ratios(figures, variant, floors[-1])
            runs[name].append(figures)
            print(f"{name}: {figures['wall']:.3f} s", file=sys.stderr, flush=True)
    medians = {name: _medians(figures) for name, figures in runs.items()}
    if options.backends:
        _print_against_first(runs, options)
    if options.peers:
        _print_peers(runs, options)
    elif options.resnet:
        _print_resnet(medians, options)
    else:
        lenet_floor = {
            threads: _medians([floor[threads] for floor in floors]) for threads in floors[0]
        }
        _print_lenet(medians, variants, lenet_floor, options)


def _chosen(options: argparse.Namespace) -> dict[str, Variant]:
    """Choose the variants to run, by name and vote, with all their overrides."""
    known, common = (RESNET_VARIANTS, RESNET) if options.resnet else (VARIANTS, LENET)
    known, common = (PEERS_VARIANTS, PEERS) if options.peers else (known, common)
    if options.resnet:
        common += (f"batch_size={options.batch_size}", f"network.width={options.width}")
    names = options.only.split(",") if options.only else list(known)
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no such variant: {', '.join(unknown)}; there are {', '.join(known)}")
    if options.peers:  # nothing is voted
        return {name: Variant((*common, *known[name].overrides)) for name in names}
    return {
        ", ".join(filter(None, (name, vote, backend))): Variant(
            (*common, *known[name].overrides, f"vote={vote}", *_over(backend)),
            known[name].replicas,
            known[name].research,
        )
        for name in names
        for vote in options.votes.split(",")
        for backend in (options.backends.split(",") if "local" not in name else [""])
    }


def _over(backend: str) -> tuple[str, ...]:
    """``gloo+`` is gloo with a server that plays workers too, by one process fewer."""
    if not backend:
        return ()
    plays = str(backend.endswith("+")).lower()
    return f"cluster.backend={backend.rstrip('+')}", f"cluster.server_plays={plays}"


def _measure(variant: Variant, options: argparse.Namespace) -> Figures:
    """Measure one run of the program, or a long and a short one."""
    records, summary, long_cpu = _run(variant, options.warmup + options.steps)
    counted = records[options.warmup :]
    profiles = [
        record["profile"] for record in counted if "cpu_seconds" in record.get("profile", {})
    ]
    figures = {
        "wall": median(record["seconds"]["total"] for record in counted),
        "bytes": float(summary["bytes_in_per_step"]),
        "d": float(summary["num_parameters"]),
    }
    if "server_memory_bytes" in summary:
        figures["memory"] = float(summary["server_memory_bytes"])
    if options.difference or not profiles:
        short_cpu = _run(variant, options.warmup)[2]
        figures["difference"] = (long_cpu - short_cpu) / options.steps
    if profiles:
        cpu = _over_steps(profile["cpu_seconds"] for profile in profiles)
        wall = _over_steps(profile["seconds"] for profile in profiles)
        figures |= {f"cpu {phase}": sum(ranks) for phase, ranks in cpu.items()}
        figures |= {f"wall {phase}": max(ranks) for phase, ranks in wall.items()}
    else:
        steps = _over_steps(
            {phase: [value] for phase, value in record["seconds"].items()} for record in counted
        )
        figures |= {f"wall {phase}": ranks[0] for phase, ranks in steps.items()}
        figures["cpu total"] = figures["difference"]
    return figures


def _run(variant: Variant, steps: int) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
    """Run the program; return records, summary and the CPU seconds of all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        before = _cpu_of_children()
        command = [
            sys.executable, "-m", "byzshield_exp", *variant.overrides, f"steps={steps}",
            f"eval_every={_NEVER}", f"checkpoint_every={_NEVER}", "profile=metrics",
            f"output_dir={folder}",
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        cpu = _cpu_of_children() - before
        (summary,) = Path(folder).glob("*/summary.json")
        lines = summary.with_name("metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], json.loads(summary.read_text()), cpu


def _cpu_of_children() -> float:
    """Wait for all descendants to end; return their user and system seconds."""
    try:
        while True:
            os.wait()  # the process that forks the ranks outlives the program by a moment
    except ChildProcessError:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _over_steps(steps: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Return each rank's median over the steps, by phase."""
    rows: dict[str, list[list[float]]] = {}
    for step in steps:
        for phase, ranks in step.items():
            rows.setdefault(phase, []).append(ranks)
    return {
        phase: [median(rank) for rank in zip(*found, strict=True)] for phase, found in rows.items()
    }


def _medians(repeats: Sequence[Figures]) -> Figures:
    keys = dict.fromkeys(key for figures in repeats for key in figures)
    return {key: median(figures[key] for figures in repeats if key in figures) for key in keys}


def _ratios(figures: Figures, variant: Variant, floor: dict[int, Figures]) -> Figures:
    """Return the ratios to plain SGD in the same repeat."""
    cpu, cpu_floor = figures["cpu total"], variant.replicas * floor[1]["cpu"]
    ratios = {
        "wall ratio": figures["wall"] / (variant.replicas * floor[_CORES]["wall"]),
        "cpu ratio": cpu / cpu_floor,
    }
    if "cpu attack" in figures:
        ratios["defence ratio"] = (cpu - figures["cpu attack"]) / cpu_floor
    return ratios


def _floor(threads: int, options: argparse.Namespace) -> Figures:
    command = [
        sys.executable, __file__, "--floor", str(threads),
        "--steps", str(options.steps), "--warmup", str(options.warmup),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def _plain_sgd(options: argparse.Namespace) -> Figures:
    """Measure the median seconds of a step of plain SGD in this process."""
    import torch
    from torch.nn.functional import cross_entropy

    from byzshield_exp.datasets import synthetic
    from byzshield_exp.networks import lenet

    torch.set_num_threads(options.floor)
    torch.manual_seed(0)
    data = synthetic(num_train=10 * BATCH, size=28)
    network = lenet(data.shape, data.num_classes).to(memory_format=torch.channels_last)
    images = data.train_images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    walls, cpus = [], []
    for _ in range(options.warmup + options.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        samples = torch.randperm(data.num_train)[:BATCH]
        optimizer.zero_grad()
        loss = cross_entropy(network(images[samples]), data.train_labels[samples])
        loss.backward()
        optimizer.step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall": median(walls[options.warmup :]), "cpu": median(cpus[options.warmup :])}


def _print_lenet(
    medians: dict[str, Figures],
    variants: dict[str, Variant],
    floor: dict[int, Figures],
    options: argparse.Namespace,
) -> None:
    head = [
        "variant", "s/step", "of r floors", "CPU s/step", "of r floors", "less attack",
        "CPU by difference", "papers' s", "papers' CPU s", "MB in", "server MiB",
    ]  # fmt: skip
    rows = [
        [f"plain SGD, threads={threads}", *_cells([figures["wall"], None, figures["cpu"]])]
        for threads, figures in floor.items()
    ]
    for name, figures in medians.items():
        get, research = figures.get, variants[name].research
        cells = _cells([
            get("wall"), get("wall ratio"), get("cpu total"), get("cpu ratio"),
            get("defence ratio"), get("difference"), *research,
        ])  # fmt: skip
        rows.append([name, *cells, *_cells([figures["bytes"] / _MB, _memory(figures, _MIB)], 1)])
    print(f"LeNet, d = 431,080, batch {BATCH}, {_CORES} cores\n")
    _print_table(head, rows, options.markdown)
    _print_phases(medians, options)


def _print_against_first(runs: dict[str, list[Figures]], options: argparse.Namespace) -> None:
    """Print wall and CPU seconds over those of the first backend in the same repeat: medians."""
    first = options.backends.split(",")[0]
    rows = []
    for name, repeats in runs.items():
        base = runs.get(f"{name.rpartition(', ')[0]}, {first}")
        if base is None:
            continue
        ratios = [
            median(mine[key] / theirs[key] for mine, theirs in zip(repeats, base, strict=True))
            for key in ("wall", "cpu total", "memory")
        ]
        rows.append([name, *_cells(ratios, 2)])
    _print_table([f"over {first}", "s/step", "CPU s/step", "server MiB"], rows, options.markdown)
    print()


def _print_resnet(medians: dict[str, Figures], options: argparse.Namespace) -> None:
    rows = []
    for name, figures in medians.items():
        unit = FILES * figures["d"] * 4
        cells = _cells([figures["wall"], figures["cpu total"]])
        cells += _cells([figures["bytes"] / _MB, _memory(figures, _MIB)], 1)
        rows.append([name, *cells, *_cells([figures["bytes"] / unit, _memory(figures, unit)], 2)])
    size = next(iter(medians.values()))["d"]
    print(
        f"ResNet-18, d = {size:,.0f}, ramanujan_two K=25 r=5 f={FILES}, batch "
        f"{options.batch_size}; the last two columns in units of f d 4 bytes (bytes in: r where "
        "rows of all replicas travel, 1 where digests do)\n"
    )
    head = ["variant", "s/step", "CPU s/step", "MB in", "server MiB", "in", "server"]
    _print_table(head, rows, options.markdown)
    _print_phases(medians, options)


def _print_peers(runs: dict[str, list[Figures]], options: argparse.Namespace) -> None:
    """Print wall and CPU seconds, and those with checks over those without in the same repeat."""
    rows = []
    for name, repeats in runs.items():
        medians, base = _medians(repeats), runs.get(f"{name.split()[0]} off", repeats)
        ratios = [
            median(mine[key] / theirs[key] for mine, theirs in zip(repeats, base, strict=True))
            for key in ("wall", "cpu total")
        ]
        cells = _cells([medians["wall"], ratios[0], medians["cpu total"], ratios[1]])
        rows.append([name, *cells, *_cells([medians["bytes"] / _MB, _memory(medians, _MIB)], 2)])
    print(f"BTARD, l46_net, d = 21,840, 6 peers of 256 samples, {_CORES} cores\n")
    head = ["variant", "s/step", "of off", "CPU s/step", "of off", "MB in", "rank 0 MiB"]
    _print_table(head, rows, options.markdown)
    _print_phases({name: _medians(repeats) for name, repeats in runs.items()}, options)


def _memory(figures: Figures, unit: float) -> float | None:
    return figures["memory"] / unit if "memory" in figures else None


def _print_phases(medians: dict[str, Figures], options: argparse.Namespace) -> None:
    """Print a table of CPU and one of wall seconds per phase, if there are any."""
    for kind, title in {"cpu": "CPU seconds, all processes", "wall": "seconds, slowest"}.items():
        keys = dict.fromkeys(
            key
            for figures in medians.values()
            for key in figures
            if key.startswith(f"{kind} ") and key.split()[1] not in ("total", "ratio")
        )
        if not keys:
            continue
        print(f"\n{title}\n")
        rows = [
            [name, *_cells([figures.get(key) for key in keys])] for name, figures in medians.items()
        ]
        _print_table(["variant", *(key.split()[1] for key in keys)], rows, options.markdown)


def _cells(values: Iterable[float | None], digits: int = 3) -> list[str]:
    return ["" if value is None else f"{value:,.{digits}f}" for value in values]


def _print_table(head: list[str], rows: list[list[str]], markdown: bool) -> None:
    padded = [row + [""] * (len(head) - len(row)) for row in rows]
    if markdown:
        print(f"| {' | '.join(head)} |\n|---|{'---:|' * (len(head) - 1)}")
        print("\n".join(f"| {' | '.join(row)} |" for row in padded))
        return
    widths = [max(map(len, column)) for column in zip(head, *padded, strict=True)]
    for first, *rest in [head, *padded]:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--votes", default="majority,digest", help="separated by commas")
    parser.add_argument("--only", default="", help="variants, separated by commas; default all")
    parser.add_argument("--backends", default="", help="of processes: sockets, gloo, gloo+")
    parser.add_argument("--resnet", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--batch-size", type=int, default=FILES, help="of --resnet")
    parser.add_argument("--width", type=int, default=64, help="of --resnet")
    parser.add_argument("--steps", type=int, help="counted; default 10, with --resnet 2")
    parser.add_argument("--warmup", type=int, help="steps before them; default 5, with --resnet 1")
    parser.add_argument("--repeats", type=int, help="default 3, with --resnet 1")
    parser.add_argument("--difference", action="store_true", help="CPU by difference too")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--floor", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, default in {"steps": (10, 2), "warmup": (5, 1), "repeats": (3, 1)}.items():
        if getattr(options, name) is None:
            setattr(options, name, default[options.resnet])
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


if __name__ == "__main__":
    main()
