"""Rounds and swaps: one process and many give the same, and what a lost or false one costs."""

import json
import signal

import pytest
import torch
from exchanging import IDS, PEERS, deserting_rank, exchanged, exchanging_rank, faulty_rank

from byzshield_exp.assignments import baseline
from byzshield_exp.clusters import (
    AloneChannel,
    Seats,
    TransportOptions,
    run_ranks,
    start_forkserver,
)
from byzshield_exp.errors import RunError
from byzshield_exp.launch.ranks import preload


def done_by(target, count, *job):
    """What rank 0 returns."""
    start_forkserver(preload())
    return json.loads(run_ranks(target, count, json.dumps(job), preload()))


@pytest.fixture(scope="module")
def alone():
    seats, options = Seats(baseline(PEERS)), TransportOptions(is_mesh=True)
    found = exchanged(AloneChannel().open(seats, options, torch.zeros(0, 1)))
    return {str(one): digest.hex() for one, digest in found.items()}


@pytest.mark.parametrize(
    ("backend", "count", "plays"), [("gloo", 3, True), ("gloo", 4, False), ("sockets", 4, False)]
)
def test_every_transport_carries_the_same(alone, backend, count, plays):
    digests, bytes_in, bytes_out = done_by(exchanging_rank, count, backend, plays)
    assert digests == alone
    assert bytes_in > 0
    assert bytes_out > 0


@pytest.mark.parametrize("verb", ["round", "swap"])
@pytest.mark.parametrize("backend", ["gloo", "sockets"])
def test_a_run_that_ends_in_the_middle_of_a_step_is_followed_by_another(backend, verb):
    assert done_by(deserting_rank, 4, backend, verb) == IDS


# Over sockets; rank 2 of three plays peers 1 and 2.

WITHOUT = [0, 3, 4, -1]


@pytest.mark.parametrize(
    ("fault", "number"),
    [("round", signal.SIGKILL), ("swap", signal.SIGKILL), ("swap", signal.SIGSTOP),
     pytest.param("round", signal.SIGSTOP, marks=pytest.mark.slow)],
)  # fmt: skip
def test_without_a_process_the_others_go_on(tmp_path, fault, number):
    note = tmp_path / "note"
    first, got, last, events = done_by(faulty_rank, 4, "sockets", fault, number, str(note))
    assert first == (WITHOUT if fault == "round" else IDS)
    assert last == WITHOUT
    assert list(map(int, got)) == WITHOUT
    for one in (0, 3, 4):
        may_be_whole = {1} if (fault, one) == ("swap", 0) else set()  # the first vector
        others = {sender for sender in (0, 3, 4) if sender != one}
        assert set(got[str(one)]) - may_be_whole == others
    assert len(events) == 1
    why = "it is gone" if number == signal.SIGKILL else "it is silent for 1.5 s"
    assert f"lost rank 2 (workers 1 to 2) for the rest of the run: {why}" in events[0]
    if number == signal.SIGSTOP:
        assert "lost the server" in note.read_text()


@pytest.mark.parametrize("fault", ["round", "swap"])
def test_over_gloo_a_lost_process_ends_the_run(tmp_path, fault):
    with pytest.raises(RunError, match=r"^rank 2 \(workers 1 to 2\) is gone$"):
        done_by(faulty_rank, 4, "gloo", fault, signal.SIGKILL, str(tmp_path / "note"))
