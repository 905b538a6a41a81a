"""Rare ends of the protocol, each of which liars can bring about."""

import pytest
import torch

from byzshield_exp.attacks import PastParameters
from byzshield_exp.clusters import AloneChannel, Seats, TransportOptions
from byzshield_exp.errors import TooFewReplicas
from byzshield_exp.training.btard.attempt import Attempt, Counts, Rules
from byzshield_exp.training.btard.cheating import Cheating
from byzshield_exp.training.btard.clip import Centre, Clipping
from byzshield_exp.training.btard.exchange import fetch_again
from byzshield_exp.training.btard.postings import Phase, blank, evidence_form, form, unpacked
from byzshield_exp.training.btard.roster import Places, Roster
from byzshield_exp.training.btard.rows import PeerRows
from byzshield_exp.training.experiment import build
from byzshield_exp.training.stopwatch import Stopwatch
from byzshield_exp.training.true_gradients import true_gradients


@pytest.fixture
def config(plain_config):
    return plain_config("approach=btard", "K=7", "q=3", "batch_size=28", "attack=alie")


def peer_rows(experiment, config):
    truth = true_gradients(experiment, config, 64)
    past = PastParameters(experiment.forge, experiment.params, {})
    return PeerRows(experiment, truth, past, None)


def test_a_ban_changes_no_row_of_the_liars_that_are_left(config):
    """What liars know of each other does not depend on who plays whom."""
    experiment = build(config)
    liars = experiment.choose(0)

    def known(world_size):
        rows, seats = peer_rows(experiment, config), Seats(experiment.assignment, world_size)
        rows.begin(0, liars, Places(seats, 0, Roster(tuple(range(7)))))
        rows.turned_honest(liars[0])
        return rows.known(liars[1])

    assert torch.equal(known(2), known(1))  # rank 0 plays nobody, or all


@pytest.mark.parametrize("live", [(0,), (0, 1, 2)])
def test_an_observer_to_whom_nobody_gives_a_part_stops(config, live):
    """It asks each peer once: who complained for ever would keep all others busy."""
    experiment = build(config)
    clipping, seats = Clipping(1.0, 1e-6), Seats(experiment.assignment, 2)
    attempt = Attempt(
        Rules(0, 7, 6, 1, True, clipping, 1.0, lambda rows: Centre(rows[0])),
        Places(seats, 0, Roster(live)),
        AloneChannel().open(seats, TransportOptions(is_mesh=True), torch.zeros(0, 1)),
        peer_rows(experiment, config), Cheating({}, (), ()), Stopwatch(None), Counts(),
        4, 0, b"", {}, lambda accusations: [],
    )  # fmt: skip
    said = blank(form(Phase.SUMS, 7, len(live), 1))
    said["complaints"][0] = 1
    attempt.summed = {-1: said}
    attempt.aggregates = dict.fromkeys(live, blank(form(Phase.AGGREGATE, 7, len(live), 1)))
    with pytest.raises(TooFewReplicas, match="step 5: no peer gives rank 0 a part"):
        fetch_again(attempt, {})


def test_evidence_of_a_part_without_entries_is_read():
    found = unpacked({3: b"", 4: b"1"}, evidence_form(0))
    assert list(found) == [3]
    assert found[3]["row"].shape == (0,)
