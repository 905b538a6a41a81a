"""Attacks on bare tensors: the case without redundancy, in which row i is worker i's."""

from functools import partial

import pytest
import torch

from byzshield_exp.aggregators import Defence, mean, median
from byzshield_exp.assignments import baseline
from byzshield_exp.attacks import (
    Knowledge,
    alie,
    alie_optimised,
    delayed_gradient,
    fang_krum,
    fang_trimmed_mean,
    gaussian,
    inner_product_manipulation,
    ipm_optimised,
    knowledge_of,
    label_flip,
    label_shuffle,
    mimic,
    min_max,
    random_direction,
    reversed_gradient,
    scalar_noise,
)
from byzshield_exp.attacks.truth import Truth

ROWS = torch.tensor([[1.0, 4.0], [3.0, 4.0], [5.0, 7.0], [0.0, 2.0]])


def test_the_last_rows_are_the_liars():
    knowledge = knowledge_of(ROWS, 1)
    assert isinstance(knowledge.truth, Truth)
    assert reversed_gradient(knowledge, scale=2.0).tolist() == [[0.0, -4.0]]
    assert inner_product_manipulation(knowledge, epsilon=1.0).tolist() == [[-3.0, -5.0]]
    byzfl = alie(knowledge, z=1.0, ddof=1, population="honest")
    assert torch.equal(byzfl, ROWS[:3].mean(dim=0)[None] + ROWS[:3].std(dim=0)[None])
    assert mimic(knowledge, victim=2).tolist() == [[5.0, 7.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "attack", [alie, alie_optimised, ipm_optimised, fang_krum, fang_trimmed_mean, gaussian, min_max,
               random_direction, reversed_gradient, scalar_noise, inner_product_manipulation],
)  # fmt: skip
def test_type_and_input_stay(attack, dtype):
    rows = torch.linspace(-1, 2, 60, dtype=dtype).view(10, 6)
    before, state = rows.clone(), torch.get_rng_state()
    forged = attack(knowledge_of(rows, 3))
    assert forged.shape == (3, 6)
    assert forged.dtype == dtype
    assert torch.equal(rows, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_seed_and_step_decide_the_draw():
    draws = [gaussian(knowledge_of(ROWS, 2, **at)) for at in ({}, {}, {"seed": 1}, {"step": 1})]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_the_defence_is_the_mean_unless_told():
    assert torch.equal(knowledge_of(ROWS, 1).defence(ROWS, 1), mean(ROWS))
    given = knowledge_of(ROWS, 1, Defence(partial(median))).defence
    assert torch.equal(given(ROWS, 1), median(ROWS))


@pytest.mark.parametrize("attack", [label_flip, label_shuffle, mimic])
def test_an_attack_that_needs_a_network_says_so(attack):
    with pytest.raises(ValueError, match="needs a run, bare rows have none"):
        attack(knowledge_of(ROWS, 1))


def test_one_that_looks_back_says_so():
    with pytest.raises(ValueError, match="looks back at step 5: it needs a run"):
        delayed_gradient(knowledge_of(ROWS, 1, step=6), delay=1)
    with pytest.raises(ValueError, match="other steps"):
        knowledge_of(ROWS, 1).truth.rows_at(0, ROWS[0], [0])


@pytest.mark.parametrize("count", [-1, 5])
def test_a_wrong_number_of_liars(count):
    with pytest.raises(ValueError, match="needs 0 <= num_byzantine <= n"):
        knowledge_of(ROWS, count)


def test_nobody_lies():
    assert reversed_gradient(knowledge_of(ROWS, 0)).shape == (0, 2)


def test_the_same_as_in_a_run():
    """With the rows in a table of the baseline, all that an attack reads is the same."""
    bare = knowledge_of(ROWS, 2)
    assert isinstance(bare, Knowledge)
    assert bare.liars == bare.files == bare.won_files == (2, 3)
    assert bare.honest_files == (0, 1)
    assert torch.equal(bare.assignment.files_of_worker, baseline(4).files_of_worker)
