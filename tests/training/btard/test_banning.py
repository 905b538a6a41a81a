"""How soon liars are banned, in runs of the protocol itself, within three standard errors."""

import math
from statistics import mean, stdev

import peers_alone
import pytest

TINY = (
    "approach=btard", "aggregator=mean", "network.hidden=[]", "dataset.size=2",
    "dataset.num_classes=2", "dataset.num_train=64", "dataset.num_test=1", "attack=sign_flip",
    "adversary=fixed_random", "adversary.start=2", "optimizer.lr=0.01",
)  # fmt: skip


@pytest.fixture
def bans(plain_config):
    """Do runs of other seeds up to a number of bans: ``bans(K, q, runs, until, *overrides)``."""

    def call(peers, liars, runs, until, *overrides, steps=400):
        config = plain_config(
            *TINY, f"K={peers}", f"q={liars}", f"batch_size={peers}",
            *overrides,
        )  # fmt: skip
        configs = [{**config, "seed": seed} for seed in range(runs)]
        found = peers_alone.runs_apart(configs, steps, until)
        for run in found:
            assert {ban["peer"] for ban in run["bans"]} <= set(run["liars"])
        return found

    return call


def is_within(found, expected, error):
    return abs(found - expected) <= 3 * error


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("peers", "liars", "validators", "rate"),
    [
        pytest.param(6, 2, 1, 0.16, marks=SLOW),
        pytest.param(16, 7, 1, 0.04, marks=SLOW),
        pytest.param(16, 7, 2, 0.0857, marks=pytest.mark.thorough),
    ],
)
def test_an_attack_is_caught_as_often_as_the_draw_says(bans, peers, liars, validators, rate):
    expected = validators / (peers - validators) * (peers - liars) / (peers - 1)
    assert expected == pytest.approx(rate, abs=5e-5)
    runs = bans(peers, liars, 50, 1, f"protocol.validators={validators}")
    caught = sum(len(run["bans"]) for run in runs)
    tried = sum(table["attacking"] for run in runs for table in run["tables"][:-1])
    assert is_within(caught, expected * tried, math.sqrt(expected * (1 - expected) * tried))


@SLOW
@pytest.mark.parametrize(
    ("on_ban", "steps"),
    [("drop", 38.0), pytest.param("replace_honest", 70.1, marks=pytest.mark.thorough)],
)
def test_seven_of_sixteen_are_gone_after(bans, on_ban, steps):
    """The steps are those of a simulation of the draw alone."""
    runs = bans(16, 7, 15, 7, f"protocol.on_ban={on_ban}", "adversary.start=1")
    taken = [len(run["tables"]) for run in runs]
    assert is_within(mean(taken), steps, stdev(taken) / math.sqrt(len(taken)))


@pytest.mark.thorough
def test_the_coin_of_the_public_codes_bans_after_as_many_attacks(bans):
    probability = 9 / 256
    runs = bans(16, 7, 12, 7, "protocol.ban=bernoulli", "protocol.on_ban=replace_honest")
    attacks = [count for run in runs for count in run["attacks"].values()]
    assert len(attacks) == 7 * len(runs)
    error = math.sqrt(1 - probability) / probability / math.sqrt(len(attacks))
    assert is_within(mean(attacks), 28.4, error)


def test_without_validators_nobody_is_banned(plain_config):
    overrides = "K=6", "q=2", "batch_size=6", "protocol.validators=0"
    run = peers_alone.run_alone(plain_config(*TINY, *overrides), steps=20)
    assert (run["bans"], set(run["attacks"].values())) == ([], {19})
