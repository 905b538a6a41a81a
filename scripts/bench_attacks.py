"""Compare the cost of the optimised attacks with one plain aggregation of the same rows.

    python scripts/bench_attacks.py [D ...]

25 rows, 5 liars, float32; medians of three calls, in one process.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from byzshield_exp import aggregators
from byzshield_exp.aggregators import Defence, columns
from byzshield_exp.attacks import alie, alie_optimised, ipm_optimised, knowledge_of

N, C = 25, 5
DEFENCES = (
    "mean", "median", "trimmed_mean", "meamed", "krum", "multi_krum", "bulyan", "geometric_median",
    "centered_clip", "mda", "caf", "nnm+trimmed_mean", "nnm+krum",
)  # fmt: skip


def main() -> None:
    """Print one table for each number of coordinates."""
    columns.compile_now()
    for size in [int(size) for size in sys.argv[1:]] or [431_080, 11_173_962]:
        rows = torch.randn(N, size, generator=torch.Generator().manual_seed(0))
        print(f"\nn = {N}, c = {C}, d = {size:,}; seconds\n")
        print("| defence | aggregation | alie | alie_optimised | ratio | ipm_optimised | ratio |")
        print("|---|" + "---:|" * 6)
        for names in DEFENCES:
            print(_row(names, rows), flush=True)


def _row(names: str, rows: torch.Tensor) -> str:
    *before, rule = (partial(getattr(aggregators, name)) for name in names.split("+"))
    defence = Defence(rule, before)
    knowledge = knowledge_of(rows, C, defence)
    plain = _seconds(lambda: defence(rows, C))
    simple = _seconds(lambda: alie(knowledge, z=1.0))
    tuned = [
        _seconds(lambda attack=attack: attack(knowledge))  # type: ignore[misc]
        for attack in (alie_optimised, ipm_optimised)
    ]
    cells = [f"{plain:.3f}", f"{simple:.3f}"]
    for seconds in tuned:
        cells += [f"{seconds:.3f}", f"{seconds / plain:.1f}"]
    return f"| {names} | {' | '.join(cells)} |"


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    main()
