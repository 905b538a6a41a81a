"""Measure time and memory of every rule and pre-aggregator, beside ByzFL's if it is installed.

    python scripts/bench_aggregators.py                       # both sizes, all rules, as markdown
    python scripts/bench_aggregators.py --sizes 431080 --rules krum,median --threads 2

25 rows, 5 of them corrupt, float32. Every measurement has its own process. It makes the rows, calls
the rule once (shown: the first call, and its peak memory above the rows), then ``--repeats`` times
more (shown: median wall and CPU seconds). Both libraries get the same rows and follow ByzFL's
conventions; "apart" is the relative distance of their results. ByzFL's clips overwrite their input,
so the time to copy it is counted with them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

N, C = 25, 5
BYZFL: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("Average", {}),
    "median": ("Median", {}),
    "trimmed_mean": ("TrMean", {"f": C}),
    "meamed": ("Meamed", {"f": C}),
    "geometric_median": ("GeometricMedian", {}),
    "centered_clip": ("CenteredClipping", {}),
    "krum": ("Krum", {"f": C}),
    "multi_krum": ("MultiKrum", {"f": C}),
    "monna": ("MoNNA", {"f": C}),
    "mda": ("MDA", {"f": C}),
    "smea": ("SMEA", {"f": C}),
    "caf": ("CAF", {"f": C}),
    "nnm": ("NNM", {"f": C}),
    "bucketing": ("Bucketing", {"s": 2}),
    "static_clip": ("Clipping", {"c": 2.0}),
    "arc": ("ARC", {"f": C}),
}
AS_BYZFL: dict[str, dict[str, Any]] = {
    "geometric_median": {"nu": 0.1, "start": "zero", "max_iterations": 3},
    "centered_clip": {"tau": 100.0, "start": "zero"},
    "krum": {"neighbours": "n-c-1"},
    "multi_krum": {"m": "n-c", "neighbours": "n-c-1"},
}
OVERWRITES = ("static_clip", "arc")  # ByzFL's overwrite their input, so they get a copy
RANDOM = ("bucketing",)  # the two libraries shuffle differently
_MOST_BYTES = 20 * 2**30  # ByzFL's NNM asks for 21 times its input
HOURS = ("smea",)  # ByzFL's goes through 53,130 subsets in Python


def main() -> None:
    """Measure each rule in a new process, or be that process."""
    options = _options()
    if options.one:
        print(json.dumps(_measure(options)))
        return
    known = _rules()
    names = options.rules.split(",") if options.rules else known
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no such rule: {', '.join(unknown)}; there are {', '.join(known)}")
    for size in (int(size) for size in options.sizes.split(",")):
        print(f"\nn = {N}, c = {C}, d = {size:,}, {options.threads} threads; seconds and MiB\n")
        print("| rule | first | wall | CPU | extra | ByzFL wall | CPU | extra | ratio | apart |")
        print("|---|" + "---:|" * 9)
        for name in names:
            print(_row(name, size, options), flush=True)


def _rules() -> list[str]:
    from byzshield_exp import aggregators
    from byzshield_exp.aggregators.rule import rule_traits

    return [name for name in aggregators.__all__ if rule_traits(getattr(aggregators, name)).kind]


def _row(name: str, size: int, options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as folder:
        ours = _spawn(name, size, "ours", folder, options)
        theirs = _spawn(name, size, "byzfl", folder, options) if name in BYZFL else None
        cells = [name, f"{ours['first']:.3f}", *_cells(ours)]
        if theirs is None or "failed" in theirs:
            why = "" if theirs is None else theirs["failed"]
            return f"| {' | '.join([*cells, why, '', '', '', ''])} |"
        ratio = theirs["wall"] / ours["wall"]
        apart = "random" if name in RANDOM else f"{_apart(Path(folder)):.1e}"
        return f"| {' | '.join([*cells, *_cells(theirs), f'{ratio:.1f}', apart])} |"


def _cells(measured: dict[str, Any]) -> list[str]:
    return [f"{measured['wall']:.3f}", f"{measured['cpu']:.3f}", f"{measured['extra']:,.0f}"]


def _spawn(
    name: str, size: int, whose: str, folder: str, options: argparse.Namespace
) -> dict[str, Any]:
    if whose == "byzfl" and (options.alone or not _has_byzfl()):
        return {"failed": ""}
    if whose == "byzfl" and name in HOURS:
        return {"failed": "hours"}
    command = [
        sys.executable, __file__, "--one", name, "--sizes", str(size), "--whose", whose,
        "--folder", folder, "--repeats", str(options.repeats), "--threads", str(options.threads),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return {"failed": "no memory" if "memory" in reason.lower() else reason[:60]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _has_byzfl() -> bool:
    import importlib.util

    return importlib.util.find_spec("byzfl") is not None


def _apart(folder: Path) -> float:
    import torch

    ours, theirs = (torch.load(folder / f"{name}.pt") for name in ("ours", "byzfl"))
    worst = 0.0
    for mine, other in zip(
        ours.flatten().split(1 << 22), theirs.flatten().split(1 << 22), strict=True
    ):
        worst += float((mine.double() - other.double()).square().sum())
    return float((worst / max(1e-300, float(theirs.double().square().sum()))) ** 0.5)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one rule of one library in this process."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    size = int(options.sizes)
    if options.whose == "byzfl":
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    rule = _byzfl_rule(options.one) if options.whose == "byzfl" else _our_rule(options.one)
    rows = _rows(size)
    before = _reset_peak()
    results = []
    for repeat in range(options.repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        result = rule(rows)
        results.append((time.perf_counter() - wall, time.process_time() - cpu))
        if repeat == 0:
            extra = _peak() - before
            torch.save(result, Path(options.folder) / f"{options.whose}.pt")
        del result
    walls, cpus = zip(*results[1:], strict=True)
    return {
        "first": results[0][0],
        "wall": statistics.median(walls),
        "cpu": statistics.median(cpus),
        "extra": extra / 2**20,
    }


def _our_rule(name: str) -> Callable[[Any], Any]:
    from byzshield_exp import aggregators
    from byzshield_exp.aggregators import columns
    from byzshield_exp.aggregators.rule import rule_traits

    columns.compile_now()  # the first time only; later loaded from the disk
    rule = getattr(aggregators, name)
    arguments = AS_BYZFL.get(name, {})
    if rule_traits(rule).kind == "mixing":
        return lambda rows: rule(rows, C, **arguments)[0]
    return lambda rows: rule(rows, C, **arguments)


def _byzfl_rule(name: str) -> Callable[[Any], Any]:
    import byzfl

    class_name, arguments = BYZFL[name]
    rule = getattr(byzfl, class_name)(**arguments)
    return (lambda rows: rule(rows.clone())) if name in OVERWRITES else rule


def _rows(size: int) -> Any:
    """Make honest rows around a common gradient, then corrupt ones a little off."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(N, size, generator=generator)
    common = torch.randn(size, generator=generator)
    rows.add_(common)
    rows[N - C :].sub_(common, alpha=1.5)
    return rows


def _status(key: str) -> int:
    for line in _lines("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def _lines(path: str) -> Iterator[str]:
    with open(path) as file:
        yield from file


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", default="431080,11173962", help="d, separated by commas")
    parser.add_argument("--rules", default="", help="names, separated by commas; default all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--alone", action="store_true", help="without ByzFL")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--whose", default="ours", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
