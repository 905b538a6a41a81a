"""The main job on real digits: the numbers of the README's first rows."""

import os

import pytest

JOB = ("steps=300", "eval_every=300")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "low", "high"),
    [
        (("approach=baseline", "aggregator=mean", "attack=none"), 0.95, 1),
        pytest.param(
            ("approach=mols", "aggregator=median", "attack=none"),
            0.95,
            1,
            marks=pytest.mark.thorough,
        ),
        (("approach=baseline", "aggregator=mean", "attack=reversed_gradient"), 0, 0.3),
        (("approach=mols", "aggregator=median", "attack=reversed_gradient"), 0.9, 1),
    ],
)
def test_digits(run, overrides, low, high):
    summary = run(*JOB, *overrides, small=False)
    assert low <= summary["final_test_accuracy"] <= high


@pytest.mark.slow
@pytest.mark.skipif("BYZSHIELD_DATA" not in os.environ, reason="BYZSHIELD_DATA is not set")
def test_mnist(run):
    root = os.environ["BYZSHIELD_DATA"]
    summary = run(
        "dataset=mnist", f"dataset.root={root}", "approach=mols", "network=lenet",
        "batch_size=300", "steps=200", small=False,
    )  # fmt: skip
    assert summary["num_parameters"] == 431_080
    assert summary["final_test_accuracy"] >= 0.93


@pytest.mark.slow
@pytest.mark.skipif("BYZSHIELD_DATA" not in os.environ, reason="BYZSHIELD_DATA is not set")
def test_peers_ban_liars_and_learn(run, tmp_path):
    def done(name, *overrides):
        return run(
            "dataset=mnist", f"dataset.root={os.environ['BYZSHIELD_DATA']}", "network=l46_net",
            "approach=btard", "K=16", "q=7", "batch_size=304", "attack=sign_flip", *overrides,
            small=False, folder=tmp_path / name,
        )  # fmt: skip

    banned = done("banned", "attack.scale=1000", "steps=150")
    assert len(banned["banned"]) == 7
    assert banned["final_test_accuracy"] >= 0.90
    off = done("off", "attack.scale=1000", "steps=150", "protocol.ban=off")
    assert off["final_test_accuracy"] <= 0.5
    last = max(ban["step"] for ban in banned["bans"])
    assert done("weak", "attack.scale=1", f"steps={last}")["bans"] == banned["bans"]
