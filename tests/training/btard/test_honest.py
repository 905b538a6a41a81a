"""Peers who follow the protocol are never banned, whatever numbers they or others have."""

import peers_alone
import pytest
import torch

from byzshield_exp.results import checkpoint

SMALL = (
    "approach=btard", "network=mlp", "network.hidden=[8]", "dataset=synthetic", "dataset.size=4",
    "dataset.num_test=1", "K=7", "batch_size=28", "adversary=fixed_random",
)  # fmt: skip
HONEST = (
    "approach=btard", "network=l46_net", "dataset=synthetic", "dataset.size=28",
    "dataset.num_test=1", "K=16", "q=0", "batch_size=16", "attack=none", "adversary=none",
)  # fmt: skip
PART_DISTANCE = 3.0  # what calibration finds


@pytest.mark.slow
@pytest.mark.parametrize(
    "tau",
    [0.02 * PART_DISTANCE, pytest.param("calibrated", marks=pytest.mark.thorough)],
)
def test_honest_steps_pass_without_a_word(plain_config, tau):
    config = plain_config(*HONEST, f"aggregator.tau={tau}", small=False)
    (run,) = peers_alone.runs_apart([config], steps=125)
    assert run["bans"] == []
    for table in run["tables"]:
        seen = {key: table[key] for key in ("attempts", "accusations", "eliminations", "trials")}
        assert seen == {"attempts": 1, "accusations": 0, "eliminations": 0, "trials": 0}
        assert table["residual"] <= 1e-6
    assert max(table["clipped_share"] for table in run["tables"]) > 0.3


@pytest.mark.parametrize("attack", ["not_a_number", "infinity", "sign_flip attack.scale=1e6"])
@pytest.mark.parametrize("tau", ["calibrated", "inf"])
def test_any_numbers_ban_liars_alone(plain_config, attack, tau):
    options = f"attack={attack.split()[0]}", *attack.split()[1:], f"aggregator.tau={tau}"
    config = plain_config(*SMALL, "q=3", "optimizer.lr=1e-4", *options, small=False)
    run = peers_alone.run_alone(config, steps=12)
    assert run["bans"]
    assert {(ban["peer"] in run["liars"], ban["reason"]) for ban in run["bans"]} == {
        (True, "wrong_gradient")
    }


def test_an_honest_divergence_bans_nobody(plain_config):
    config = plain_config(*SMALL, "q=0", "attack=none", "optimizer.lr=1e30", small=False)
    run = peers_alone.run_alone(config, steps=8)
    assert run["bans"] == []
    assert run["loss"] != run["loss"]  # NaN


def test_clipping_that_does_not_converge_is_tried_and_bans_nobody(plain_config):
    overrides = "q=0", "attack=none", "aggregator.tau=0.01", "aggregator.iterations=1"
    run = peers_alone.run_alone(plain_config(*SMALL, *overrides, small=False), steps=2)
    assert run["bans"] == []
    assert all(table["trials"] > 0 for table in run["tables"])


@pytest.mark.slow
def test_without_checks_and_clipping_it_is_a_servers_mean(run, tmp_path):
    common = "K=5", "batch_size=20", "attack=none", "q=0", "steps=20"
    variants = {
        "peers": ("approach=btard", "protocol.ban=off", "aggregator.tau=inf"),
        "server": ("approach=baseline", "aggregator=mean"),
    }
    found = []
    for name, overrides in variants.items():
        run(*common, *overrides, folder=tmp_path / name)
        (folder,) = (tmp_path / name).glob(f"*/{checkpoint.FOLDER}")
        found.append(checkpoint.newest(folder).state["params"])
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)
