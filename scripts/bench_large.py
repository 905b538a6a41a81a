"""CPU seconds of the server for a byte, a message and an entry: the figures of server_load.py.

    python scripts/bench_large.py                     # rows of ResNet-18: 45 MB
    python scripts/bench_large.py --dimension 1000000

Server and three worker processes are the program's own, over TCP on this machine; the workers send
rows that they have already. Of ``majority`` come r equal rows of each file, which are compared; of
``digest`` one of each file, which is hashed. Seconds are those of the server's thread, waiting left
out, so that other programs change them little: medians over steps, the first one left out. What is
left at rows of one entry is the messages'. The median is torch's thread alone, on n rows.
"""

import argparse
import multiprocessing
import secrets
import socket
import statistics
import time
from dataclasses import astuple, dataclass

import torch

from byzshield_exp.aggregators import columns, median
from byzshield_exp.assignments import fractional_repetition
from byzshield_exp.clusters import Cluster, Group, Rendezvous, Statement, cluster_of, join

_WORKERS, _REPLICATION, _RANKS, _STEPS = 20, 5, 3, 12
_TIMEOUT_S, _BUCKET = 60.0, 1 << 20


def main() -> None:
    """Measure both votes and the median, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dimension", type=int, default=11_173_962)
    dimension = parser.parse_args().dimension
    torch.set_num_threads(1)
    columns.compile_now()
    for vote in ("majority", "digest"):
        small, large = (_measured(vote == "digest", size) for size in (1, dimension))
        rows = _WORKERS if vote == "majority" else _WORKERS + _WORKERS // _REPLICATION
        print(
            f"{vote}: {1e6 * small.taking / (rows + _RANKS):.0f} us a message, taking "
            f"{(large.taking - small.taking) / large.gigabytes_in:.2f} s per GB, giving "
            f"{(large.giving - small.giving) / large.gigabytes_out:.2f} s per GB"
        )
    for count in (25, 100, 200, 361, 1000):
        print(f"median of {count} rows: {_median_ns(count):.2f} ns an entry")


@dataclass(frozen=True)
class Step:
    """CPU seconds of the server's thread in a step, and what travelled.

    Attributes:
        giving: seconds until the parameters had left.
        taking: seconds until all rows were there.
        gigabytes_out: sent.
        gigabytes_in: received.
    """

    giving: float
    taking: float
    gigabytes_out: float
    gigabytes_in: float


def _measured(reads_digests: bool, dimension: int) -> Step:
    """The medians over steps."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    secret = secrets.token_hex(32)
    places = [Rendezvous(address, secret, rank, _RANKS + 1) for rank in range(_RANKS + 1)]
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(place, reads_digests, dimension), daemon=True)
        for place in places[1:]
    ]
    for worker in workers:
        worker.start()
    group = join(places[0])
    assignment = fractional_repetition(_WORKERS, _REPLICATION)
    server = cluster_of(group, assignment, reads_digests, _TIMEOUT_S, _BUCKET)
    params = torch.zeros(dimension)
    steps = [_step(group, server, params, number) for number in range(_STEPS)]
    server.end()
    for worker in workers:
        worker.join()
    group.close()
    return Step(
        *(statistics.median(column) for column in zip(*map(astuple, steps[1:]), strict=True))
    )


def _step(group: Group, server: Cluster, params: torch.Tensor, number: int) -> Step:
    hub = group.hub
    if hub is None:
        raise RuntimeError("this is no server")
    start = time.thread_time()
    server.begin_step(params, number)
    hub.flush(hub.alive)
    given = time.thread_time()
    inbox = server.gather(number)
    files = range(server.assignment.num_files)
    server.deliver({file: list(range(_REPLICATION)) for file in files})
    taken = time.thread_time()
    received = 0 if inbox is None else inbox.bytes_in
    return Step(given - start, taken - given, _RANKS * params.nbytes / 1e9, received / 1e9)


def _median_ns(count: int) -> float:
    columns_each = 4_000_000 // count
    rows = torch.randn(count, columns_each, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(_STEPS):
        start = time.thread_time()
        median(rows)
        seconds.append(time.thread_time() - start)
    return 1e9 * statistics.median(seconds[1:]) / (count * columns_each)


def _work(place: Rendezvous, reads_digests: bool, dimension: int) -> None:
    torch.set_num_threads(1)
    group = join(place)
    assignment = fractional_repetition(_WORKERS, _REPLICATION)
    worker = cluster_of(group, assignment, reads_digests, _TIMEOUT_S, _BUCKET)
    params, generator = torch.zeros(dimension), torch.Generator().manual_seed(0)
    rows = torch.randn(assignment.num_files, dimension, generator=generator)
    while (step := worker.begin_step(params, None)) is not None:
        for own in worker.workers:
            for file in assignment.files_of_worker[own].tolist():
                worker.put(step, own, file, rows[file], 0.0)
        worker.finish(step, Statement({}, {}, 0))
    group.close()


if __name__ == "__main__":
    main()
