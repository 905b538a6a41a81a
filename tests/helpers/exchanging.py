"""What peers post and swap in a test, the same over every transport."""

import hashlib
import json
import random

import torch

from byzshield_exp.assignments import baseline
from byzshield_exp.clusters import Seats, TransportOptions, join

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
