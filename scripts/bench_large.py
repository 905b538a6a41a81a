"""Measure the server's CPU seconds for a byte, a message and an entry, for server_load.py.

    python scripts/bench_large.py                     # rows of ResNet-18: 45 MB
    python scripts/bench_large.py --dimension 1000000

The server and three worker processes are the program's own, over TCP on this machine; the workers
send rows that are ready. With ``majority``, r equal rows of each file arrive and are compared; with
``digest``, one row of each file arrives and is hashed. Seconds are CPU seconds of the server's
thread, so that waiting does not count and other programs change them little: medians over the steps
after the first. Rows of one entry give the cost of the messages. The median of n rows runs in one
thread of torch.
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
from byzshield_exp.clusters import (
    Channel,
    Rendezvous,
    Seats,
    Statement,
    Transport,
    TransportOptions,
    deliver,
    in_first_rows,
    join,
)
from byzshield_exp.clusters.sockets.channel import ServerChannel
from byzshield_exp.rows.message import Message
from byzshield_exp.rows.parallel import new_rows

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
    """CPU seconds of the server's thread in a step, and the traffic.

    Attributes:
        giving: seconds until the parameters were sent.
        taking: seconds from then until all rows had arrived.
        gigabytes_out: sent.
        gigabytes_in: received.
    """

    giving: float
    taking: float
    gigabytes_out: float
    gigabytes_in: float


def _measured(reads_digests: bool, dimension: int) -> Step:
    """Return the medians over the steps after the first."""
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
    channel = join(places[0])
    params = torch.zeros(dimension)
    rows = new_rows(_WORKERS // _REPLICATION, params[None])
    server = _open(channel, reads_digests, rows)
    steps = [_step(channel, server, params, rows, number) for number in range(_STEPS)]
    server.end()
    for worker in workers:
        worker.join()
    channel.close()
    return Step(
        *(statistics.median(column) for column in zip(*map(astuple, steps[1:]), strict=True))
    )


def _open(channel: Channel, reads_digests: bool, rows: torch.Tensor) -> Transport:
    assignment = fractional_repetition(_WORKERS, _REPLICATION)
    options = TransportOptions(reads_digests, _TIMEOUT_S, _BUCKET)
    return channel.open(Seats(assignment, _RANKS + 1), options, rows)


def _step(
    channel: Channel, server: Transport, params: torch.Tensor, rows: torch.Tensor, number: int
) -> Step:
    if not isinstance(channel, ServerChannel):
        raise RuntimeError("this is no server")
    start = time.thread_time()
    server.publish(number, params)
    channel.hub.flush(channel.hub.alive)
    given = time.thread_time()
    inbox = server.collect(number, Statement({}, {}, 0), ())
    if inbox is None:
        raise RuntimeError("this is no server")
    classes = {file: list(range(_REPLICATION)) for file in range(len(rows))}
    in_first_rows(deliver(server, inbox, classes, number).rows, rows)
    taken = time.thread_time()
    received, _ = server.traffic
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
    channel = join(place)
    worker = _open(channel, reads_digests, torch.empty(0, dimension))
    seats = worker.seats
    params, generator = torch.zeros(dimension), torch.Generator().manual_seed(0)
    rows = torch.randn(seats.assignment.num_files, dimension, generator=generator)
    while (step := worker.publish(None, params)) is not None:
        for own, file in seats.order_of(place.rank, ()):
            worker.send(step, own, file, Message(rows[file], dimension, 0.0))
        worker.collect(step, Statement({}, {}, 0), ())
        worker.fetch({})
    channel.close()


if __name__ == "__main__":
    main()
