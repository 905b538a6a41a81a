"""Mimic and delayed gradients: what they look back at is the same in every run."""

import numpy as np
import pytest
import torch
from running import SMALL, metrics_of, run_program, summary_of
from test_attacks import Rows, knowledge
from test_attacks_all import real_truth

from byzshield_exp.assignments import baseline, mols
from byzshield_exp.attacks import PastParameters, delayed_gradient, mimic
from byzshield_exp.binding import bind
from byzshield_exp.results import checkpoint

BASE = ("approach=baseline", "K=6", "q=2", "aggregator=mean", "batch_size=60", "steps=7")
DELAYED = (*BASE, "attack=delayed_gradient", "attack.delay=3")
MIMIC = (*BASE, "attack=mimic", "attack.warmup=2")


class Drifting(Rows):
    """Every step adds noise to the rows."""

    def rows_at(self, step, params, files):
        noise = np.random.default_rng(step).standard_normal(self.table.shape)
        return params[0] * (self.table + 0.01 * torch.from_numpy(noise))[list(files)]


def test_mimic_sends_the_row_of_the_file_farthest_along_the_largest_variance():
    """Files 2 and 4 differ most; of these, 4 has the longest shadow; then 2, if 4 is a liar."""
    rows = torch.zeros(6, 50, dtype=torch.float64)
    rows[2, 0], rows[4, 0] = -5, 6
    rows[:, 1] = torch.arange(6) / 10
    rows[:, 2] = 3
    for liars, victim in (((0, 1), 4), ((4,), 2), ((4, 2), None)):
        forged = mimic(knowledge(Drifting(rows), baseline(6), liars, liars), warmup=3)
        if victim is not None:
            assert torch.equal(forged, rows[[victim]].expand(len(liars), -1))
        assert any(torch.equal(forged[0], rows[w]) for w in range(6) if w not in liars)


def test_mimic_warms_up_once_and_at_the_initial_parameters():
    asked = []

    class Watched(Drifting):
        def rows_at(self, step, params, files):
            asked.append((step, float(params[0])))
            return super().rows_at(step, params, files)

    rows, memory = Watched(torch.eye(6, dtype=torch.float64)), {}
    for step in (4, 5):
        mimic(knowledge(rows, baseline(6), (0,), (0,), step=step, memory=memory), warmup=3)
    assert asked == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_mimic_of_a_given_victim_needs_no_warm_up():
    rows = Rows(torch.eye(6))
    forged = mimic(knowledge(rows, baseline(6), (0, 1), (0, 1)), victim=3)
    assert torch.equal(forged, rows.table[[3, 3]])
    assert rows.read == {3}


def test_delayed_gradient_is_the_one_of_that_step():
    truth, params = real_truth()
    seen, kept = {}, {}
    attack = bind(
        "attack", {"_target_": "byzshield_exp.attacks.delayed_gradient", "delay": 3}, ("knowledge",)
    )
    past = PastParameters(attack, params, {})
    for step in range(9):
        truth.begin(step)
        seen[step] = attack(knowledge(truth, mols(15, 3), (0,), (2, 5), step, past=past.at))
        kept[step] = truth.rows([2, 5])
        past.remember(step)
        params -= 0.1 * truth.rows().mean(dim=0)
    for step in range(9):
        assert torch.equal(seen[step], kept[step - 3 if step >= 3 else step])
    assert truth.num_computed == 9 * 25


def test_only_what_the_attack_asks_for_is_kept():
    state, params = {}, torch.ones(4)
    past = PastParameters(None, params, state)
    past.remember(0)
    assert not state
    assert past.known(9) == []
    with pytest.raises(ValueError, match="must declare recent_steps or is_initial_read"):
        past.at(0)
    past = PastParameters(mimic, params, state)
    params += 1
    assert past.at(0).tolist() == [1] * 4
    past = PastParameters(delayed_gradient, params, state)
    assert state["past_params"].shape == (100, 4)
    assert [len(past.known(step)) for step in (0, 7, 100, 300)] == [0, 7, 100, 100]


def processes(count):
    return ("cluster=processes", f"cluster.num_processes={count}")


@pytest.mark.thorough
@pytest.mark.parametrize("attack", [DELAYED, MIMIC], ids=["delayed", "mimic"])
def test_three_processes_do_what_one_does_and_resume_where_it_stopped(run, tmp_path, attack):
    whole = run(*attack, folder=tmp_path / "whole")
    assert whole["attack_effective"]
    honest = run(*BASE, "attack=none", folder=tmp_path / "honest")
    assert whole["parameters_sha256"] != honest["parameters_sha256"]
    part = tmp_path / "part"
    run(*attack, "steps=5", folder=part)
    assert run(*attack, folder=part)["parameters_sha256"] == whole["parameters_sha256"]
    for steps in (5, 7):
        done = run_program(
            *SMALL, *attack, *processes(3), f"steps={steps}", f"output_dir={tmp_path}/three"
        )
        assert done.returncode == 0, done.stderr
    three = summary_of(tmp_path / "three")
    assert three["parameters_sha256"] == whole["parameters_sha256"]


def test_a_checkpoint_holds_the_ring_and_nothing_more(run, tmp_path):
    summary = run(*DELAYED)
    (newest,) = tmp_path.glob("**/step_00000007.pt")
    state = checkpoint.load(newest)["state"]
    assert set(state) == {"past_params"}
    assert state["past_params"].shape == (3, summary["num_parameters"])
    assert {record["vote_disagreements"] for record in metrics_of(tmp_path)} == {0}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["attack=delayed_gradient", "attack.delay=0"], "attack.delay=0 must be at least 1"),
        (["attack=mimic", "attack.warmup=0"], "attack.warmup=0 must be at least 1"),
        (["attack=mimic", "attack.victim=25"], "attack.victim=25 must be a file, from 0 to 24"),
        (
            ["attack=majorities_only", "attack@attack.attack=delayed_gradient",
             "attack.attack.delay=0"],
            "attack.attack.delay=0 must be at least 1",
        ),
    ],
)  # fmt: skip
def test_impossible_arguments_stop_before_the_start(cli, tmp_path, overrides, message):
    code, _, err = cli(*SMALL, f"output_dir={tmp_path}/out", *overrides)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_delay_as_long_as_the_run_does_nothing(run, cli, tmp_path):
    code, _, err = cli(*SMALL, *DELAYED, "attack.delay=7", f"output_dir={tmp_path}/a")
    assert code == 0
    assert "the attack does nothing: its delay of 7 steps does not end within steps=7" in err
    assert summary_of(tmp_path / "a")["attack_effective"] is False
