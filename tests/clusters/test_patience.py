"""How long ranks are waited for."""

import time

import pytest
import torch
from socket_table import SIZE

from byzshield_exp.clusters.sockets.patience import Patience


@pytest.mark.slow
def test_a_peer_that_is_silent_again_and_again_is_waited_for_less(table):
    at, waits = table(reads_digests=False, timeout=0.4), []
    for step in range(4, 12):
        if step > 4:
            at.server.publish(step, torch.zeros(SIZE))
        for rank in (1, 2):
            at.send(rank, *at.messages(rank, step=step))
        began = time.monotonic()
        inbox = at.gather(step)
        waits.append(time.monotonic() - began)
        assert inbox.absent == tuple(at.server.seats.workers_of(3))
        if step % 2 == 0:  # too late; at every second step nothing is expected of it
            at.send(3, *at.messages(3, step=step))
            at.pump(1.0, lambda: 3 not in at.server._reception.owed)
    assert waits[2] < waits[0]


def test_patience_has_an_end_and_comes_back():
    patience = Patience([1, 2, 3], timeout=32.0)
    for _ in range(2000):
        patience.silent.clear()
        assert patience.gave_up(3)
        assert not patience.gave_up(3)
    assert patience.of(3) == 32.0  # until half have answered nobody is late
    for half_took, of_three in ((0.1, 1.0), (5.0, 15.0), (20.0, 32.0)):
        patience.ask(3)
        patience.answered(1, half_took / 2)
        patience.answered(2, half_took)
        assert patience.of(3) == of_three  # others needed a third of that
        assert patience.of(2) == 32.0
    patience.silent.clear()
    for step in range(101):
        patience.ask(3)
        for rank in (1, 2, 3):
            patience.answered(rank, 0.001)
        if step == 20:
            assert 1.0 < patience.of(3) < 32.0
    assert patience.slowness[3] == 0
