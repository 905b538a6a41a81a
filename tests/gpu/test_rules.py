"""Rules and pre-aggregators on a GPU: what they say in float64 on the CPU."""

from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from byzshield_exp import aggregators
from byzshield_exp.aggregators import Defence, NonFiniteRows, nnm, squared_distances
from byzshield_exp.aggregators.rule import rule_traits

N, C = 11, 2
WIDTH = 999
KINDS = {name: rule_traits(getattr(aggregators, name)).kind for name in aggregators.__all__}
RULES = [name for name, kind in KINDS.items() if kind not in ("", "mixing")]
MIXINGS = [name for name, kind in KINDS.items() if kind == "mixing"]

every_rule = pytest.mark.parametrize("name", RULES)


def rule_of(name):
    if name == "sign_guard" and find_spec("sklearn") is None:
        pytest.skip("needs scikit-learn")
    return getattr(aggregators, name)


def rows_of(width, seed=0):
    """Float32 numbers, so that float64 has the same ones."""
    rows = torch.from_numpy(np.random.default_rng(seed).standard_normal((N, width), np.float32))
    rows[:C] = 3 * rows[:C] + 1
    return rows


def assert_near(found, wanted, largest):
    """Compare entries of one result.

    Inner products are float64 on both sides. What is float32 on a GPU: the sum over up to N rows
    (N roundings of 6e-8 each) and, in a few rules, a norm with a relative error near 1e-6.
    """
    assert found.device.type == "cuda"
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu().double(), wanted, rtol=0, atol=1e-5 * largest)


def test_there_are_rules_and_mixings():
    assert len(RULES) >= 19
    assert len(MIXINGS) >= 4


@every_rule
def test_a_rule_is_that_of_the_cpu(gpu, name):
    rule, rows = rule_of(name), rows_of(gpu.width)
    assert_near(rule(rows.to("cuda"), C), rule(rows.double(), C), float(rows.abs().max()))


@every_rule
def test_a_rule_behind_a_mixing_is_that_of_the_cpu(gpu, name):
    defence = Defence(partial(rule_of(name)), [partial(nnm)])
    rows = rows_of(WIDTH, seed=1)
    found, wanted = defence(rows.to("cuda"), C), defence(rows.double(), C)
    if name == "sign_majority":  # a mixed sum of nearly 0 may have either sign
        assert (found.cpu() == wanted).double().mean() > 0.99
        return
    assert_near(found, wanted, float(rows.abs().max()))


@every_rule
def test_ties_are_decided_as_on_the_cpu(gpu, name):
    """Whole numbers: all inner products are exact, whatever the order of their sums."""
    rows = torch.from_numpy(np.random.default_rng(2).integers(-2, 3, (N, 60))).float()
    rows[4], rows[7], rows[5] = rows[3], rows[3], -rows[3]
    rule = rule_of(name)
    assert_near(rule(rows.to("cuda"), C), rule(rows.double(), C), 2.0)


@every_rule
def test_rows_that_are_not_finite_are_set_aside_as_on_the_cpu(gpu, name):
    rule, rows = rule_of(name), rows_of(WIDTH, seed=3)
    if name == "monna":
        rule = partial(rule, trusted=1)
    largest = float(rows.abs().max())
    rows[0, -1], rows[4, 17] = torch.nan, -torch.inf
    assert_near(rule(rows.to("cuda"), C), rule(rows.double(), C), largest)
    rows[8, 3] = torch.inf
    with pytest.raises(NonFiniteRows) as error:
        rule(rows.to("cuda"), C)
    assert error.value.rows == (0, 4, 8)


@pytest.mark.parametrize("name", MIXINGS)
def test_a_mixing_is_that_of_the_cpu(gpu, name):
    mix, rows = getattr(aggregators, name), rows_of(WIDTH, seed=4)
    (found, left), (wanted, as_many) = mix(rows.to("cuda"), C), mix(rows.double(), C)
    assert left == as_many
    assert_near(found, wanted, float(rows.abs().max()))


def test_distances_are_right_near_each_other_and_far_out(gpu):
    rows = rows_of(WIDTH, seed=5) * 1e-4 + 1e4
    rows[3] = rows[2]
    found, wanted = squared_distances(rows.to("cuda")), squared_distances(rows.double())
    assert found.device.type == "cuda"
    assert found[2, 3] == 0
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-9, atol=0)
