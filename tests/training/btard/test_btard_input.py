"""What peers cannot run is refused in one line before the first step."""

import re

import pytest

from byzshield_exp.errors import ConfigError
from byzshield_exp.training.experiment import build

PEERS = "approach=btard", "K=7", "q=2", "batch_size=28", "steps=1", "eval_every=1"
SMALL = "dataset=synthetic", "network=mlp", "network.hidden=[2]", "adversary=fixed_random"
CASES = {
    "pre-aggregator": (["pre_aggregator=nnm"], "pre_aggregator=nnm protocol=btard: peers cannot"),
    "momentum": (["worker_momentum=0.9"], "worker_momentum=0.9 protocol=btard: validators would"),
    "other liars": (["adversary=random"], "adversary=random protocol.ban=validate: a ban is for"),
    "rule": (["aggregator=median"], "aggregator=median protocol.ban=validate: only centred clip"),
    "radius of a step": (
        ["aggregator.tau=auto", "protocol.ban=off"],
        "aggregator.tau=auto protocol=btard: a radius that an aggregator finds",
    ),
    "first centre": (["aggregator.start=zero"], "aggregator.start=zero protocol=btard: parts are"),
    "radius": (["aggregator.tau=0"], "aggregator=centered_clip_btard needs tau > 0"),
    "validators": (["protocol.validators=4"], "protocol.validators=4 must lie between 0 and (K - "),
    "no validators": (["protocol.validators=-1"], "protocol.validators=-1 must lie between 0 and"),
    "projections": (["protocol.projections=0"], "protocol.projections=0 must be at least 1"),
    "bound": (["protocol.delta_max=0"], "protocol.delta_max=0 must be above 0"),
    "bound's type": (["protocol.delta_max=far"], "protocol.delta_max='far' must be float or auto"),
    "coin": (["protocol.ban_probability=2"], "protocol.ban_probability=2 must lie in [0, 1]"),
    "ban": (["protocol.ban=maybe"], "protocol.ban='maybe' must be one of validate, bernoulli"),
    "on_ban": (["protocol.on_ban=keep"], "protocol.on_ban='keep' must be one of drop, replace_"),
    "cheat's key": (
        ["cheat=wrong_sum", "+cheat.wrong_sum.a=1"],
        "cheat.wrong_sum.a=1: unknown argument",
    ),
    "cheat not chosen": (["+cheat.wrong_sum=1"], "cheat.wrong_sum=1: no such cheat is chosen"),
    "nothing to cheat in": (
        ["cheat=wrong_sum", "protocol.ban=off"],
        "cheat=wrong_sum protocol.ban=off: only protocol.ban=validate has the rounds",
    ),
    "server": (
        ["cheat=wrong_sum", "protocol=parameter_server"],
        "cheat=wrong_sum protocol=parameter_server: cheats",
    ),
    "placement": (
        ["approach=mols", "protocol=btard", "K=15", "r=3", "batch_size=50"],
        "approach=mols protocol=btard: needs a file per peer",
    ),
    "tolerant vote": (["vote=tolerant"], "vote=tolerant protocol=btard: peers compare bytes"),
}


NAMES = {
    "unknown key": (["protocol.validator=1"], "unknown key protocol.validator, protocol has"),
    "unknown cheat": (["cheat=wrong_agregate"], "cheat=wrong_agregate: no such choice, there are"),
    "victims": (
        ["cheat=withhold", "cheat.withhold.victims=-1"],
        "cheat.withhold.victims=-1 must be at least 0",
    ),
    "no radius": (
        ["K=16", "batch_size=16", "dataset.size=2", "dataset.num_classes=2", "attack=none"],
        "aggregator.tau=calibrated: the files' gradients at the initial parameters are 0.0 from",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_peers_cannot_run_is_refused(plain_config, case):
    overrides, expected = CASES[case]
    with pytest.raises(ConfigError, match=re.escape(expected)) as refused:
        build(plain_config(*PEERS, *SMALL, *overrides, small=False))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("case", NAMES)
def test_it_is_one_line_before_the_first_step(cli, tmp_path, case):
    overrides, expected = NAMES[case]
    code, _, err = cli(*PEERS, *SMALL, f"output_dir={tmp_path}", *overrides)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert expected in err
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_half_of_the_computing_peers_who_lie_are_too_many(plain_config):
    def notes(*overrides):
        config = plain_config(*PEERS, *SMALL, *overrides, small=False)
        return [note for note in build(config).notes if "promises nothing" in note]

    assert notes("q=3", "protocol.validators=0") == notes("q=2") == []
    assert "q=3 of K=7" in notes("q=3")[0]  # six compute
    assert notes("q=3", "protocol.ban=off") == []
