"""What peers post and swap in a test, the same over every transport."""

import contextlib
import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path

import torch

from byzshield_exp.assignments import baseline
from byzshield_exp.clusters import Seats, TransportOptions, join, peer_group
from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.errors import LostServer

PEERS = 5
IDS = [*range(PEERS), -1]  # the last observes
DIGEST = 32


def opened(rendezvous, backend, plays, timeout=20.0):
    """The channel and the transport of a run of peers in this process."""
    channel = join(rendezvous, backend)
    seats = Seats(baseline(PEERS), rendezvous.world_size, plays)
    options = TransportOptions(worker_timeout=timeout, bucket=1 << 16, is_mesh=True)
    return channel, channel.open(seats, options, torch.zeros(0, 1))


def own_ids(transport):
    return [one for one in IDS if transport.seats.rank_of_id(one) == transport.rank]


def vector_of(step, pair, size):
    seed = hash((step, *pair)) % 2**31
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def exchanged(transport, steps=3):
    """Post and swap at random; by id the digest of all that it got."""
    mine, chance = own_ids(transport), random.Random(0)
    got = {one: hashlib.sha256() for one in mine}
    step = transport.publish(0, None)
    while step is not None:
        for _ in range(4):
            expected = chance.sample(IDS, chance.randrange(len(IDS) + 1))
            size = chance.choice([0, 1, 3000])
            there = {one: chance.randbytes(size) for one in expected if chance.random() < 0.8}
            posts = {one: said for one, said in there.items() if one in mine}
            found = transport.round(step, posts, expected, size)
            assert list(found.items()) == list(there.items())
            pairs = [(a, b) for a in range(PEERS) for b in IDS if a != b and chance.random() < 0.8]
            sizes = {pair: chance.choice([0, 1, 70_000]) for pair in pairs}
            given = {pair for pair in pairs if chance.random() < 0.8}
            vectors = {
                pair: vector_of(step, pair, sizes[pair]) for pair in given if pair[0] in mine
            }
            came = transport.swap(step, vectors, sizes)
            assert list(came) == [pair for pair in pairs if pair in given and pair[1] in mine]
            for pair, vector in came.items():
                got[pair[1]].update(repr(pair).encode() + vector.numpy().tobytes())
        step = transport.publish(step + 1 if step + 1 < steps else None, None)
    return {one: digest.digest() for one, digest in got.items()}


def exchanging_rank(rendezvous, job):
    """A rank; the digests of all ranks as JSON."""
    backend, plays = json.loads(job)
    channel, transport = opened(rendezvous, backend, plays)
    time.sleep(0.1 * (transport.rank == 2))  # others are ahead of it
    transport.introduce(b"who")
    mine = exchanged(transport)
    transport.end()
    channel.run += 1  # a second run over the same channel
    seats, options = transport.seats, TransportOptions(worker_timeout=20.0, is_mesh=True)
    second = channel.open(seats, options, torch.zeros(0, 1))
    second.publish(0, None)
    found = second.round(0, mine, IDS, DIGEST)
    bytes_in, bytes_out = second.traffic
    second.publish(None, None)
    second.end()
    channel.close()
    return json.dumps([{one: said.hex() for one, said in found.items()}, bytes_in, bytes_out])


def all_pairs(ids):
    return {(a, b): 70_000 for a in ids for b in ids if a != b and a >= 0}


def faulty_rank(rendezvous, job):
    """A rank; rank 2 sends itself a signal in a round or in the middle of a vector.

    Rank 0 says who posted in each of three rounds, what each id got in the swap after the first,
    and the events.
    """
    backend, fault, number, note = json.loads(job)
    timeout = 1.5 if number == signal.SIGSTOP else 20.0
    channel, transport = opened(rendezvous, backend, plays=False, timeout=timeout)
    mine, note = own_ids(transport), Path(note)
    transport.publish(0, None)
    pid = os.getpid().to_bytes(8, "little")
    said = transport.round(0, dict.fromkeys(mine, pid), IDS, 8)
    if transport.rank == 2 and fault == "round":
        os.kill(os.getpid(), number)
    if transport.rank == 2 and fault == "swap":
        fall_in_a_vector(number)
    try:
        posted = [transport.round(0, dict.fromkeys(mine, b"a"), IDS, 1)]
        expected = all_pairs(posted[-1])
        vectors = {pair: vector_of(0, pair, 70_000) for pair in expected if pair[0] in mine}
        came = transport.swap(0, vectors, expected)
        for pair, vector in came.items():
            assert torch.equal(vector, vector_of(0, pair, 70_000))
        from_whom = {one: bytes((a, one) in came for a in IDS) for one in mine}
        posted += [transport.round(0, from_whom, [*posted[-1]], len(IDS))]
        assert transport.publish(1, None) == 1
        posted += [transport.round(1, dict.fromkeys(mine, b"b"), [*posted[-1]], 1)]
    except LostServer as lost:
        note.write_text(str(lost))
        raise
    if transport.rank == 0 and number == signal.SIGSTOP:
        os.kill(int.from_bytes(said[min(transport.seats.workers_of(2))], "little"), signal.SIGCONT)
        wait_for(note.exists)
    events = list(transport.events)
    transport.publish(None, None)
    transport.end()
    channel.close()
    got = {
        one: [a for a, came in zip(IDS, said, strict=True) if came]
        for one, said in posted[1].items()
    }
    return json.dumps([[*posted[0]], got, [*posted[2]], events])


def fall_in_a_vector(number):
    """Send the half of the second vector to another worker, and then a signal to oneself.

    Over gloo the signal comes before the first one.
    """
    peer_group.start = lambda operations: os.kill(os.getpid(), number)
    send, count = Hub.send, 0

    def send_half(self, peer, head, content):
        nonlocal count
        count += 1
        send(self, peer, head, content[: len(content) // 2] if count == 2 else content)
        if count == 2:
            os.kill(os.getpid(), number)

    Hub.send = send_half


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def deserting_rank(rendezvous, job):
    """A rank; rank 0 ends the first run in the middle of a step; the posts of the second run."""
    backend, verb = json.loads(job)
    channel, transport = opened(rendezvous, backend, plays=False)
    mine, rank = own_ids(transport), transport.rank
    transport.publish(0, None)
    transport.round(0, {}, IDS, 1)
    if rank > 0:
        with contextlib.suppress(LostServer):
            while True:
                transport.round(0, {}, IDS, 1) if verb == "round" else swap_all(transport, mine)
                verb = "round"  # in a swap over sockets nobody hears of the end
        assert transport.publish(None, None) is None
    transport.end()
    channel.run += 1
    options = TransportOptions(worker_timeout=20.0, is_mesh=True)
    second = channel.open(transport.seats, options, torch.zeros(0, 1))
    second.publish(0, None)
    found = second.round(0, dict.fromkeys(mine, b"x"), IDS, 1)
    second.publish(None, None)
    second.end()
    channel.close()
    return json.dumps([*found])


def swap_all(transport, mine):
    expected = all_pairs(IDS)
    vectors = {pair: torch.ones(70_000) for pair in expected if pair[0] in mine}
    transport.swap(0, vectors, expected)
