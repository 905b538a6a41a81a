"""Measure seconds and nodes of the worst-case search without the cache: medians of several runs.

python scripts/bench_distortion.py [REPEATS]
"""

import sys
import time
from statistics import median

from byzshield_exp.distortion import worst_case
from byzshield_exp.distortion.papers import TABLES


def main() -> None:
    """Print seconds per q and per table; the first call, which compiles, is shown apart."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    start = time.perf_counter()
    worst_case(TABLES[-1].make(), 5, use_cache=False)
    seconds = time.perf_counter() - start
    print(f"first call, with the import of numba and compilation if new: {seconds:.2f} s")
    for table in TABLES:
        whole = []
        times: dict[int, list[float]] = {q: [] for q in table.rows}
        nodes = {}
        for _ in range(repeats):
            start = time.perf_counter()
            assignment = table.make()
            for q in table.rows:
                found = worst_case(assignment, q, use_cache=False)
                times[q].append(found.seconds)
                nodes[q] = found.nodes
            whole.append(time.perf_counter() - start)
        print(f"{table.title}: {median(whole):.3f} s in all")
        for q, values in times.items():
            spent = median(values)
            print(f"  q={q}: {spent:.3f} s, {nodes[q]:,} nodes, {nodes[q] / spent:,.0f} nodes/s")


if __name__ == "__main__":
    main()
