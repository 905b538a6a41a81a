"""Rounds and swaps: one process and many give the same."""

import json

import pytest
import torch
from exchanging import PEERS, exchanged, exchanging_rank

from byzshield_exp.assignments import baseline
from byzshield_exp.clusters import (
    AloneChannel,
    Seats,
    TransportOptions,
    run_ranks,
    start_forkserver,
)
from byzshield_exp.launch.ranks import preload


@pytest.fixture(scope="module")
def alone():
    transport = AloneChannel().open(
        Seats(baseline(PEERS)), TransportOptions(is_mesh=True), torch.zeros(0, 1)
    )
    return {str(one): digest.hex() for one, digest in exchanged(transport).items()}


@pytest.mark.parametrize(
    ("backend", "count", "plays"), [("gloo", 3, True), ("gloo", 4, False), ("sockets", 4, False)]
)
def test_every_transport_carries_the_same(alone, backend, count, plays):
    start_forkserver(preload())
    found = run_ranks(exchanging_rank, count, json.dumps([backend, plays]), preload())
    digests, bytes_in, bytes_out = json.loads(found)
    assert digests == alone
    assert bytes_in > 0
    assert bytes_out > 0
