"""Estimate a step's load on the server of a large cluster: bytes, seconds, memory.

    python scripts/server_load.py
    python scripts/server_load.py --workers-per-process 16 --gbits 25

A step's bytes follow from the placement (K workers, f files, l of them each), the row (d float32)
and the number of processes with workers, P:

    out                  P 4d: the parameters
    in, majority         K l 4d: every replica
    in, digest           f 4d: every winner once, and K l digests
    memory               (f + 8) 4d: the winners, and what else the server keeps

plus the headers. Seconds are those of the exchange and the coordinate-wise median, without the
workers' computation. Parameters leave, then rows arrive, each as fast as the slower of the link and
the server's thread allows:

    max(out / link, out giving) + max(in / link, in taking + messages) + f d median(f)

The figures are measured by ``scripts/bench_large.py``, the 8 rows by ``bench_step.py --resnet``.
"""

import argparse
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from byzshield_exp.clusters.inbox import STATEMENT_BYTES
from byzshield_exp.clusters.sockets.wire import HEADER_BYTES
from byzshield_exp.rows.digests import DIGEST_BYTES

Vote = Literal["majority", "digest"]
NETWORKS = {"LeNet": 131_080, "ResNet-18": 11_173_962, "25 M": 25_000_000}
VOTES: tuple[Vote, ...] = ("majority", "digest")
GIVING = 0.43e-9  # CPU seconds of the server's thread per byte
TAKING = {"majority": 0.31e-9, "digest": 0.54e-9}
MESSAGE = 60e-6  # seconds each
MEDIAN = {25: 1.04e-9, 100: 1.5e-9, 200: 1.8e-9, 361: 2.1e-9, 1000: 3.0e-9}  # per entry, by rows
_KEPT = 8  # rows: parameters, momentum, update, what leaves, and working memory


@dataclass(frozen=True)
class Placement:
    """The numbers of a placement.

    Attributes:
        name: the approach.
        num_workers: K.
        replication: r.
        load: l, files of a worker.
    """

    name: str
    num_workers: int
    replication: int
    load: int

    @property
    def num_files(self) -> int:
        """Files, f."""
        return self.num_workers * self.load // self.replication


PLACEMENTS = (
    Placement("fractional_repetition", 100, 5, 1),
    Placement("random", 100, 5, 5),
    Placement("mols", 95, 5, 19),
    Placement("fractional_repetition", 1000, 5, 1),
    Placement("random", 1000, 5, 5),
    Placement("mols", 992, 31, 32),
)


@dataclass(frozen=True)
class Load:
    """The load of a step on the server.

    Attributes:
        bytes_in: received.
        bytes_out: sent.
        messages: received.
        memory: bytes.
    """

    bytes_in: int
    bytes_out: int
    messages: int
    memory: int


def load_of(placement: Placement, size: int, vote: Vote, processes: int) -> Load:
    """Compute the load in closed form.

    It is exact, but for the memory, if nobody lies and no worker is missing.

    Args:
        placement: who computes what.
        size: d.
        vote: by rows or by digests.
        processes: P, the processes with workers.
    """
    replicas, files = placement.num_workers * placement.load, placement.num_files
    row = HEADER_BYTES + 4 * size
    ends = processes * (HEADER_BYTES + STATEMENT_BYTES)
    if vote == "majority":
        coming, asked, messages = replicas * row, 0, replicas
    else:
        coming = replicas * (HEADER_BYTES + DIGEST_BYTES) + files * row
        asked, messages = files * HEADER_BYTES, replicas + files
    return Load(
        coming + ends, processes * row + asked, messages + processes, (files + _KEPT) * 4 * size
    )


def seconds_of(load: Load, num_files: int, size: int, vote: Vote, gbits: float) -> float:
    """Compute the server's seconds of a step, over a link of ``gbits`` Gbit/s each way."""
    per_byte = 8e-9 / gbits
    giving = load.bytes_out * max(per_byte, GIVING)
    taking = max(load.bytes_in * per_byte, load.bytes_in * TAKING[vote] + load.messages * MESSAGE)
    return giving + taking + num_files * size * median_of(num_files)


def median_of(count: int) -> float:
    """Interpolate the median's seconds per entry for ``count`` rows; constant beyond the ends."""
    known = sorted(MEDIAN)
    logarithms = [math.log(each) for each in known]
    return float(np.interp(math.log(count), logarithms, [MEDIAN[each] for each in known]))


def main() -> None:
    """Print the table as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers-per-process", type=int, default=8)
    parser.add_argument("--gbits", type=float, nargs="+", default=[10.0, 100.0])
    options = parser.parse_args()
    each = options.workers_per_process
    links = [f"s at {gbits:g} Gbit/s" for gbits in options.gbits]
    heads = ["K, placement, f", "network", "vote", "GB in", "GB out", *links, "memory, GB"]
    print(f"GB out and seconds: a process per worker / one per {each} workers\n")
    print(f"| {' | '.join(heads)} |\n|---|---|---|{'---:|' * (len(heads) - 3)}")
    for placement in PLACEMENTS:
        for network, size in NETWORKS.items():
            for vote in VOTES:
                print(_line(placement, network, size, vote, each, options.gbits))


def _line(
    placement: Placement, network: str, size: int, vote: Vote, each: int, links: list[float]
) -> str:
    workers, files = placement.num_workers, placement.num_files
    loads = [load_of(placement, size, vote, count) for count in (workers, -(-workers // each))]
    cells = [
        f"{workers} {placement.name}, {files}",
        network,
        vote,
        _short(loads[0].bytes_in / 1e9),
        " / ".join(_short(load.bytes_out / 1e9) for load in loads),
    ]
    for gbits in links:
        found = (seconds_of(load, files, size, vote, gbits) for load in loads)
        cells.append(" / ".join(map(_short, found)))
    return f"| {' | '.join([*cells, _short(loads[0].memory / 1e9)])} |"


def _short(value: float) -> str:
    """Round to two significant digits."""
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{round(value, digits):,.{digits}f}" if value < 10 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
