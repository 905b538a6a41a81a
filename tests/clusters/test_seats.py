"""Who plays whom."""

import pytest
from socket_table import MOLS

from byzshield_exp.assignments import baseline
from byzshield_exp.clusters import Seats
from byzshield_exp.clusters.alone import Alone


@pytest.mark.parametrize("server_plays", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 4, 7, 15, 16])
def test_every_worker_lives_on_one_rank(world_size, server_plays):
    if world_size == 16 and server_plays:
        pytest.skip("one rank more than workers")
    seats = Seats(MOLS, world_size, server_plays)
    places = [seats.workers_of(rank) for rank in range(world_size)]
    assert sorted(worker for place in places for worker in place) == list(range(15))
    assert all(seats.rank_of[worker] == rank for rank in seats.players for worker in places[rank])
    assert (len(places[0]) > 0) == (world_size == 1 or server_plays)
    sizes = [len(places[rank]) for rank in seats.players]
    assert max(sizes) - min(sizes) <= 1


def test_a_worker_knows_its_place_among_the_replicas():
    for (worker, file), place in Seats(MOLS).place_of.items():
        assert MOLS.workers_of_file[file, place] == worker


@pytest.mark.parametrize("attack", ["none", "alie", "majorities_only"])
def test_messages_are_sent_in_the_order_that_all_ranks_know(run, monkeypatch, attack):
    sent, send = {}, Alone.send
    lying_at, collect = {}, Alone.collect

    def send_noted(self, step, worker, file, message):
        sent.setdefault(step, []).append((worker, file))
        send(self, step, worker, file, message)

    def collect_noted(self, step, statement, lying):
        lying_at[step] = self.seats.order_of(0, lying)
        return collect(self, step, statement, lying)

    monkeypatch.setattr(Alone, "send", send_noted)
    monkeypatch.setattr(Alone, "collect", collect_noted)
    run(f"attack={attack}", "adversary=random", "steps=2")
    assert sent == lying_at
    assert len(sent) == 2


@pytest.mark.parametrize(
    ("assignment", "world_size", "needed", "count"),
    [(MOLS, 16, 2, 1), (MOLS, 16, 1, 2), (MOLS, 4, 2, 1), (MOLS, 3, 2, 0), (MOLS, 2, 2, 0),
     (baseline(15), 16, 1, 0)],
)  # fmt: skip
def test_how_many_ranks_may_be_lost(assignment, world_size, needed, count):
    seats = Seats(assignment, world_size)
    assert seats.bearable(needed) == count


def test_an_observer_is_its_process():
    seats = Seats(MOLS, 4)
    assert [seats.rank_of_id(one) for one in (0, 5, 14, -1, -4)] == [1, 2, 3, 0, 3]
