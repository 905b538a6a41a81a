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


@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 128), marks=pytest.mark.slow)])
def test_honest_peers_are_banned_by_elimination_only(parts, seeds):
    configs = [mixture(parts, seed) for seed in seeds]
    *runs, again = peers_alone.runs_apart([*configs, configs[0]], steps=6)
    assert again == runs[0]  # whatever ran before it in its process
    for seed, run in zip(seeds, runs, strict=True):
        honest = [ban for ban in run["bans"] if ban["peer"] not in run["liars"]]
        assert {ban["reason"] for ban in honest} <= {"eliminated"}, seed
        assert len(honest) <= sum(peer in run["liars"] for peer in run["banned"]), seed
