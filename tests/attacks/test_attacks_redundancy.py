"""Wrappers that lie where liars win, and how they are configured."""

from functools import partial
from itertools import combinations
from math import comb

import pytest
import torch
from running import SMALL, metrics_of, summary_of
from test_attacks import Rows, knowledge
from test_attacks_all import table

from byzshield_exp.assignments import baseline, mols, subsets
from byzshield_exp.attacks import (
    constant,
    fixed_disagreement,
    forged_files,
    gaussian,
    majorities_only,
    reversed_gradient,
)
from byzshield_exp.attacks.redundancy import disagreement_files, disagreement_set
from byzshield_exp.binding import bind
from byzshield_exp.distortion import worst_case
from byzshield_exp.errors import ConfigError

LIARS = worst_case(mols(15, 3), 5).workers
NESTED = {"_target_": "byzshield_exp.attacks.constant", "value": 3}
WRAPPER = "byzshield_exp.attacks.majorities_only"


def test_won_files_are_those_with_a_majority_of_liars():
    assignment = mols(15, 3)
    held = assignment.incidence[list(LIARS)].sum(dim=0)
    seen = knowledge(Rows(table()), assignment, LIARS, (0,))
    assert seen.won_files == tuple(file for file in range(25) if held[file] >= 2)
    assert len(seen.won_files) == worst_case(assignment, 5).count == 8
    assert seen.honest_weights().tolist() == (3 - held).tolist()
    assert seen.honest_weights().dtype == torch.float64


def test_majorities_only_lies_on_won_files_and_is_honest_elsewhere():
    rows = Rows(table())
    seen = knowledge(rows, mols(15, 3), LIARS, tuple(range(25)))
    forged = majorities_only(seen, partial(constant, value=3.0))
    for file in range(25):
        expected = torch.full((40,), 3.0) if file in seen.won_files else rows.table[file]
        assert torch.equal(forged[file], expected)


def test_without_redundancy_liars_win_their_files():
    seen = knowledge(Rows(table()), baseline(25), (3, 4), (3, 4))
    assert torch.equal(majorities_only(seen, reversed_gradient), reversed_gradient(seen))


@pytest.mark.parametrize(("workers", "r", "q"), [(7, 3, 2), (7, 3, 3), (8, 3, 4), (9, 5, 3)])
def test_fixed_disagreement_wins_half_of_what_2q_workers_share(workers, r, q):
    """Theorem 1 of Aspis, whoever lies."""
    placement = subsets(workers, r)
    for liars in list(combinations(range(workers), q))[::7]:
        chosen = disagreement_set(placement, liars)
        assert len(chosen) == q
        assert not set(chosen) & set(liars)
        assert len(disagreement_files(placement, liars)) == comb(2 * q, r) // 2


@pytest.mark.parametrize("q", range(16))
def test_fixed_disagreement_is_with_q_workers_at_most(q):
    assignment, liars = mols(15, 3), worst_case(mols(15, 3), q).workers
    chosen = disagreement_set(assignment, liars)
    assert len(chosen) == min(q, 15 - q)
    assert chosen == disagreement_set(assignment, liars)
    files = disagreement_files(assignment, liars)
    seen = knowledge(Rows(table()), assignment, liars, tuple(range(25)))
    forged = fixed_disagreement(seen, gaussian)
    changed = (forged != seen.truth.table).any(dim=1).nonzero().flatten().tolist()
    assert tuple(changed) == files
    disagreeing = {w for file in files for w in assignment.workers_of_file[file].tolist()}
    assert disagreeing <= {*liars, *chosen}
    assert set(files) <= set(seen.won_files)
    if q > 3:
        assert files


def test_fixed_disagreement_follows_the_liars():
    seen = knowledge(Rows(table()), mols(15, 3), LIARS, tuple(range(25)))
    others = knowledge(seen.truth, mols(15, 3), (0, 1), tuple(range(25)), memory=seen.memory)
    first = fixed_disagreement(seen, gaussian)
    assert torch.equal(fixed_disagreement(others, gaussian), seen.truth.table)
    assert torch.equal(fixed_disagreement(seen, gaussian), first)


def test_forged_files_are_seen_through_wrappers():
    assignment = mols(15, 3)
    won = set(knowledge(Rows(table()), assignment, LIARS, ()).won_files)
    few = set(disagreement_files(assignment, LIARS))
    majorities = partial(majorities_only, attack=partial(gaussian))
    assert forged_files(partial(gaussian), assignment, LIARS) is None
    assert forged_files(majorities, assignment, LIARS) == won
    both = partial(fixed_disagreement, attack=majorities)
    assert forged_files(both, assignment, LIARS) == few
    assert few < won


def test_an_attack_inside_an_attack_is_bound_and_checked():
    attack = bind("attack", {"_target_": WRAPPER, "attack": NESTED}, ("knowledge",))
    assert attack.keywords["attack"].keywords == {"value": 3.0}
    seen = knowledge(Rows(table()), mols(15, 3), LIARS, LIARS)
    assert attack(seen).shape == (5, 40)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ({**NESTED, "value": "x"}, r"attack\.attack\.value='x' must be float"),
        ({**NESTED, "vlaue": 1.0}, r"attack\.attack\.vlaue=1.0: unknown argument.*'value'"),
        ({"_target_": "byzshield_exp.attacks.nope"}, r"attack\.attack\._target_=.*cannot be imp"),
        ({"_target_": WRAPPER}, r"attack\.attack\.attack is not given"),
        ({**NESTED, "knowledge": 1}, r"attack\.attack\.knowledge=1: unknown argument"),
        ({}, r"attack\.attack=\{\}: choose it with attack@attack\.attack=NAME"),
        ("alie", r"attack\.attack='alie': choose it"),
        (None, r"attack\.attack=None: choose it"),
    ],
)
def test_a_wrong_inner_attack_is_one_line(inner, message):
    with pytest.raises(ConfigError, match=message):
        bind("attack", {"_target_": WRAPPER, "attack": inner}, ("knowledge",))


@pytest.mark.slow
def test_an_inner_attack_is_chosen_on_the_command_line(run, cli, tmp_path):
    ends = {
        more: run("attack=majorities_only", "q=4", *more, folder=tmp_path / str(number))
        for number, more in enumerate(
            [
                (),
                ("attack@attack.attack=reversed_gradient",),
                ("attack@attack.attack=reversed_gradient", "attack.attack.scale=10"),
                ("attack@attack.attack=fixed_disagreement",),
            ]
        )
    }
    assert len({end["parameters_sha256"] for end in ends.values()}) == 4
    assert all(end["attack_effective"] for end in ends.values())
    wrong = ("attack=majorities_only", "attack@attack.attack=none")
    code, _, err = cli(*SMALL, *wrong, f"output_dir={tmp_path}/none")
    assert code == 2
    assert "attack.attack={}: choose it with attack@attack.attack=NAME" in err


@pytest.mark.slow
def test_the_vote_sees_fewer_disagreements_and_loses_as_many_files(run, tmp_path):
    wasteful = ("q=5", "attack=reversed_gradient")
    careful = ("q=5", "attack=majorities_only", "attack@attack.attack=reversed_gradient")
    first = run(*wasteful, folder=tmp_path / "a")
    second = run(*careful, folder=tmp_path / "b")
    assert first["parameters_sha256"] == second["parameters_sha256"]
    for before, after in zip(metrics_of(tmp_path / "a"), metrics_of(tmp_path / "b"), strict=True):
        assert before["distorted_files"] == after["distorted_files"] == 8
        assert after["vote_disagreements"] < before["vote_disagreements"]


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (["q=1", "attack=majorities_only"], "every file keeps a majority"),
        (
            ["approach=maj_vote", "K=6", "r=2", "q=1", "attack=majorities_only"],
            "no file is left to lie on against these q=1",
        ),
        (["attack=majorities_only", "attack.attack.z=0"], "the z of alie is 0"),
        (["attack=alie_byzfl", "attack.z=0"], "the z of alie is 0"),
        (
            ["attack=fixed_disagreement", "attack@attack.attack=delayed_gradient", "q=5"],
            "its delay of 100 steps",
        ),
    ],
)
def test_pointless_wrapped_attacks_warn(cli, tmp_path, overrides, warning):
    code, _, err = cli(*SMALL, f"output_dir={tmp_path}", *overrides)
    assert code == 0
    assert err.count("warning: ") == 1
    assert f"the attack does nothing: {warning}" in err
    assert summary_of(tmp_path)["attack_effective"] is False


@pytest.mark.slow
def test_a_run_is_named_by_the_inner_attack_where_it_is_not_the_usual_one(cli, tmp_path):
    def name(*overrides):
        code, out, err = cli(f"output_dir={tmp_path}", "plan=true", *overrides)
        assert code == 0, err
        return out.splitlines()[-1].rpartition("/")[2]

    wrapper, inner = "attack=majorities_only", "attack@attack.attack"
    assert name(wrapper) == name(wrapper, f"{inner}=alie") == wrapper
    assert name(wrapper, "attack.attack.z=1") == f"{wrapper},attack.attack.z=1"
    assert name(wrapper, f"{inner}=ipm") == f"{wrapper},attack_attack.attack=ipm"
