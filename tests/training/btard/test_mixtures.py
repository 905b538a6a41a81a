"""Random mixtures of cheats and attacks: honest peers are banned by ELIMINATE only."""

import random

import peers_alone
import pytest

CHEATS = (
    "wrong_aggregate", "covered_aggregate", "wrong_sum", "wrong_norm", "wrong_part", "withhold",
    "no_commit", "equivocate", "mprng_abort", "false_accusation", "false_complaint",
)  # fmt: skip
ATTACKS = "none", "sign_flip", "alie", "label_flip", "not_a_number", "infinity", "delayed_gradient"
SMALL = (
    "approach=btard", "dataset=synthetic", "network=mlp", "network.hidden=[4]", "dataset.size=4",
    "dataset.num_classes=4", "dataset.num_test=1", "dataset.num_train=200", "optimizer.lr=0.01",
    "adversary=fixed_random", "steps=6", "eval_every=6",
)  # fmt: skip


@pytest.fixture
def parts(plain_config):
    """All choices to mix: a configuration, and the group ``attack`` of each attack."""
    config = plain_config(*SMALL, f"cheat=[{','.join(CHEATS)}]", small=False)
    attacks = {name: plain_config(f"attack={name}")["attack"] for name in ATTACKS}
    return config, attacks


def mixture(parts, seed):
    """A configuration with other choices for each seed."""
    (config, attacks), draw = parts, random.Random(seed)
    peers = draw.choice([3, 4, 5, 6, 7, 9, 12])
    most = (peers - 1) // 2
    cheats = {name: dict(config["cheat"][name]) for name in draw.sample(CHEATS, draw.randint(0, 4))}
    for choice in cheats.values():
        for key, values in (("victims", (1, 2, 5)), ("shift", (0.001, 1.0, 100.0))):
            if key in choice:
                choice[key] = draw.choice(values)
        for key in ("is_silent", "observers"):
            if key in choice:
                choice[key] = draw.random() < 0.5
    tau = draw.choice(["calibrated", 0.01, 1.0, float("inf")])
    when = {"start": draw.randint(1, 3), "every": draw.randint(1, 3)}
    rules = {
        "validators": draw.randint(0, min(2, most)),
        "projections": draw.randint(1, 2),
        "on_ban": draw.choice(["drop", "replace_honest"]),
        "delta_max": draw.choice(["auto", 1.0, float("inf")]),
    }
    return {
        **config, "seed": seed, "K": peers, "q": draw.randint(0, most), "batch_size": 3 * peers,
        "approach": {**config["approach"], "num_workers": peers}, "cheat": cheats,
        "attack": attacks[draw.choice(ATTACKS)], "adversary": {**config["adversary"], **when},
        "aggregator": {**config["aggregator"], "tau": tau},
        "protocol": {**config["protocol"], **rules},
    }  # fmt: skip


def strange(parts, seed):
    """The same, with a cheat that is none of the program's."""
    name = ("chaos", "denial", "claim")[seed % 3]
    mixed = mixture(parts, seed)
    mixed |= {"q": (mixed["K"] - 1) // 2, "adversary": parts[0]["adversary"]}
    attack = parts[1][("sign_flip", "not_a_number")[seed % 2]]
    return {**mixed, "cheat": {name: {"_target_": f"chaos.{name}"}}, "attack": attack}


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, pytest.param(110, marks=pytest.mark.thorough)])
def test_honest_peers_are_banned_by_elimination_only(parts, count):
    configs = [make(parts, seed) for seed in range(count) for make in (mixture, strange)]
    *runs, again = peers_alone.runs_apart([*configs, configs[0]], steps=5)
    assert again == runs[0]  # whatever ran before it in its process
    for config, run in zip(configs, runs, strict=True):
        honest = [ban for ban in run["bans"] if ban["peer"] not in run["liars"]]
        assert {ban["reason"] for ban in honest} <= {"eliminated"}, config
        assert len(honest) <= sum(peer in run["liars"] for peer in run["banned"]), config


def test_the_last_honest_peer_goes_on(parts):
    """Each false complaint takes an honest peer, so one is left, who may be a validator."""
    base = mixture(parts, 0)
    for seed in range(10, 15):
        config = {
            **base, "seed": seed, "K": 5, "q": 2, "batch_size": 15, "attack": parts[1]["none"],
            "approach": {**base["approach"], "num_workers": 5},
            "adversary": {**base["adversary"], "start": 1, "every": 3},
            "protocol": {**base["protocol"], "validators": 1, "on_ban": "drop"},
            "cheat": {"false_complaint": parts[0]["cheat"]["false_complaint"]},
        }  # fmt: skip
        run = peers_alone.run_alone(config, steps=4)
        assert [table["alive"] for table in run["tables"]] == [5, 5, 1, 1]


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_uninterrupted_one(peers, tmp_path):
    options = "attack=sign_flip", "adversary=fixed_random", "seed=3", "eval_every=100"
    whole, _ = peers(*options, "steps=12")
    first = whole["bans"][0]["step"]
    assert first > 2
    for steps in (first - 1, 12):  # a validator's finding waits in the checkpoint
        resumed, _ = peers(*options, f"steps={steps}", folder=tmp_path / "resumed")
    for name in ("bans", "attacks", "parameters_sha256"):
        assert resumed[name] == whole[name]
