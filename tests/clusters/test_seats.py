"""Who plays whom."""

import pytest
from socket_table import MOLS

from byzshield_exp.assignments import baseline
from byzshield_exp.clusters import Seats


@pytest.mark.parametrize("world_size", [1, 2, 4, 7, 16])
def test_every_worker_lives_on_one_rank(world_size):
    seats = Seats(MOLS, world_size)
    places = [seats.workers_of(rank) for rank in range(world_size)]
    assert sorted(worker for place in places for worker in place) == list(range(15))
    if world_size > 1:
        assert len(places[0]) == 0
        sizes = [len(place) for place in places[1:]]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("assignment", "world_size", "needed", "count"),
    [(MOLS, 16, 2, 1), (MOLS, 16, 1, 2), (MOLS, 4, 2, 1), (MOLS, 3, 2, 0), (MOLS, 2, 2, 0),
     (baseline(15), 16, 1, 0)],
)  # fmt: skip
def test_how_many_ranks_may_be_lost(assignment, world_size, needed, count):
    seats = Seats(assignment, world_size)
    assert seats.bearable(needed) == count
