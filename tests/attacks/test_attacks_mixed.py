"""Several attacks in one run."""

from functools import partial

import pytest
import torch
from running import SMALL
from test_attacks import Rows, knowledge

from byzshield_exp.assignments import baseline, mols
from byzshield_exp.attacks import (
    PastParameters,
    Setting,
    alie,
    constant,
    delayed_gradient,
    forged_files,
    is_declared,
    majorities_only,
    mimic,
    mixed,
    reversed_gradient,
    shares,
    why_idle,
)
from byzshield_exp.attacks.attack import is_initial_read, recent_steps
from byzshield_exp.training.experiment import build
from byzshield_exp.training.forging import Forging
from byzshield_exp.training.gradients import TrueGradients

TWO = {"first": partial(constant, value=1.0), "second": reversed_gradient}
THREE = ("attack=mixed", "+attack@attack.attacks.third=label_flip")
SIX = ("approach=baseline", "K=6", "q=3", "adversary=explicit", "adversary.workers=[1,3,5]")
RECORDING = """
SEEN = []

def rule(rows, num_corrupt):
    SEEN.append(rows.clone())
    return 0 * rows[0]
"""


def who(liars=(0, 2, 3, 7), **options):
    made = shares(partial(mixed, attacks=TWO, **options), liars)
    return [workers for _, workers in made.values()]


def test_liars_take_the_attacks_in_turn_or_as_told():
    assert who() == [(0, 3), (2, 7)]
    assert who(workers={"second": [7]}) == [(0, 2, 3), (7,)]
    assert who(workers={"second": [7, 0], "first": [3, 2]}) == [(3, 2), (7, 0)]
    assert shares(reversed_gradient, (1, 2)) == {"": (reversed_gradient, (1, 2))}


def test_bare_rows_are_those_of_each_attack():
    rows = torch.arange(20.0).view(5, 4)
    forged = mixed(knowledge(Rows(rows), baseline(5), (1, 3, 4), (1, 3, 4)), TWO)
    assert torch.equal(forged, torch.stack([torch.ones(4), -100 * rows[3], torch.ones(4)]))


def test_all_attacks_are_asked():
    inner = {"a": partial(mimic), "b": partial(delayed_gradient, delay=7), "c": partial(alie, z=0)}
    attack = partial(mixed, attacks=inner)
    assert is_declared(attack)
    assert (recent_steps(attack), is_initial_read(attack)) == (7, True)
    assert why_idle(attack, Setting(15, 3, steps=5)) == ""  # mimic is not
    assert "delay of 7" in why_idle(partial(mixed, attacks={"b": inner["b"]}), Setting(15, 3, 5))
    placement = mols(15, 3)
    won = partial(majorities_only, attack=alie)
    one, both = ({"a": won}, {"a": won, "b": partial(alie)})
    assert forged_files(partial(mixed, attacks=one), placement, (0, 5)) == {0}
    assert forged_files(partial(mixed, attacks=both), placement, (0, 5)) is None


@pytest.mark.slow
def test_a_real_run_sends_the_rows_of_the_single_attacks(run, tmp_path, monkeypatch):
    (tmp_path / "recording.py").write_text(RECORDING)
    monkeypatch.syspath_prepend(tmp_path)
    import recording

    def rows(name, *overrides):
        recording.SEEN.clear()
        target = ("aggregator._target_=recording.rule", "optimizer.weight_decay=0")
        run(*SIX, *target, *overrides, folder=tmp_path / name)
        return torch.stack([seen for seen in recording.SEEN if seen.shape[1] > 2])

    several = rows("several", *THREE, "attack.workers={third:[1]}")
    singles = [rows(f"{n}", f"attack={n}") for n in ("none", "sign_flip", "alie", "label_flip")]
    assert several.shape[:2] == (4, 6)
    for worker, single in enumerate([0, 3, 0, 1, 0, 2]):
        assert torch.equal(several[:, worker], singles[single][:, worker])
    assert len({float(rows[0, 1].sum()) for rows in singles}) == 4


def test_liars_with_one_attack_send_equal_replicas_and_others_do_not(plain_config):
    """Workers 0, 1 and 2 hold file 0; 0 and 2 make the first attack."""
    experiment = build(plain_config("approach=maj_vote", "K=6", "q=3", *THREE[:1]))
    liars = experiment.choose(0)
    truth = TrueGradients(experiment.network, experiment.dataset, experiment.batches, 2)
    truth.begin(0)
    past = PastParameters(experiment.forge, experiment.params, {})
    lies = Forging(experiment, truth, past).lies(0, liars, liars)
    one, other, third = (lies[worker, 0].joined for worker in liars)
    assert torch.equal(one, third)
    assert not torch.equal(one, other)


@pytest.mark.slow
def test_all_backends_end_with_the_same_bits(run, tmp_path):
    lies = ("q=5", *THREE, "attack.workers={second:[3]}", "adversary=fixed_random", "seed=3")
    here = run(*lies, folder=tmp_path / "here")
    there = run(*lies, "cluster=processes", "cluster.num_processes=3", folder=tmp_path / "there")
    assert here["parameters_sha256"] == there["parameters_sha256"]
    assert here["attackers"] == {"first": [5, 10], "second": [3], "third": [7, 11]}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["attack.workers={first:[9]}"], "attack.workers.first=[9]: worker 9 does not lie, the"),
        (["attack.workers={frist:[1]}"], "attack.workers.frist=[1]: the attacks are first, second"),
        (["attack.workers={first:[1],second:[1,3]}"], "names worker 1 twice"),
        (["attack.workers={first:[1],second:[3]}"], "leaves worker 5 without an attack, the liars"),
        (["attack.workers={first:[]}"], "attack.attacks.first is left without a worker, the liars"),
        (
            ["q=1", "adversary.workers=[3]"],
            "attack.attacks.second is left without a worker, the liars",
        ),
        (["adversary=random", "attack.workers={first:[1]}"], "worker 1 does not lie, the liars"),
        (["attack.workers={first:3}"], "attack.workers={'first': 3} must be"),
        (["attack.attacks.second.z=x"], "attack.attacks.second.z='x' must be float or null"),
        (["attack@attack.attacks.first=none"], "choose it with attack@attack.attacks.first=NAME"),
    ],
)
def test_wrong_workers_are_one_line(cli, tmp_path, overrides, message):
    given = SIX if overrides[0] != "adversary=random" else SIX[:3]
    code, _, err = cli(*SMALL, *given, "attack=mixed", *overrides, f"output_dir={tmp_path}")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
