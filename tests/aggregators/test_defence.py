"""Pre-aggregators, and chains of them with any rule; sorted columns on both paths."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from test_aggregators import RULES, rows_of

from byzshield_exp import aggregators
from byzshield_exp.aggregators import (
    Defence,
    Geometry,
    NonFiniteRows,
    arc,
    bucketing,
    columns,
    krum,
    nnm,
    static_clip,
)
from byzshield_exp.aggregators.rule import rule_traits
from byzshield_exp.aggregators.sorting import sorting_network

MIXINGS = {
    name: getattr(aggregators, name)
    for name in aggregators.__all__
    if rule_traits(getattr(aggregators, name)).kind == "mixing"
}
every_mixing = pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS)


def make_generator():
    return np.random.default_rng(3)


def test_all_mixings_are_tested():
    assert set(MIXINGS) == {"nnm", "bucketing", "static_clip", "arc"}


def test_nnm_by_hand():
    rows = torch.tensor([[0.0], [1.0], [3.0], [100.0]])
    mixed, left = nnm(rows, 1)  # three nearest: 0 1 3, 0 1 3, 0 1 3, 100 3 1
    torch.testing.assert_close(mixed, torch.tensor([[4 / 3], [4 / 3], [4 / 3], [104 / 3]]))
    assert left == 1


def test_bucketing_by_hand():
    rows = torch.tensor([[0.0], [2.0], [3.0], [5.0], [9.0]])
    mixed, left = bucketing(rows, 2)
    assert mixed.tolist() == [[1.0], [4.0], [9.0]]
    assert left == 2
    assert bucketing(rows, 4, size=3)[1] == 2  # no more corrupt rows than rows
    shuffled, _ = bucketing(rows, 1, generator=make_generator())
    order = make_generator().permutation(5)
    assert shuffled[0].item() == pytest.approx(float(rows[order[:2]].mean()))


def test_clips_by_hand():
    rows = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [0.0, -2.0], [30.0, 40.0]])
    clipped, left = static_clip(rows, 1, max_norm=5.0)
    torch.testing.assert_close(clipped[2:], torch.tensor([[3.0, 4.0], [0.0, -2.0], [3.0, 4.0]]))
    assert torch.equal(clipped[:2], rows[:2])
    assert left == 1
    # c = 1: floor(2 * 1 * 4 / 5) = 1 row, 50 long, to the norm of the next, 10
    clipped, _ = arc(rows, 1)
    torch.testing.assert_close(clipped[4], torch.tensor([6.0, 8.0]))
    assert torch.equal(clipped[:4], rows[:4])
    # c = 2: floor(2 * 2 * 3 / 5) = 2 rows, to 5
    torch.testing.assert_close(arc(rows, 2)[0][2:].norm(dim=1), torch.tensor([5.0, 2.0, 5.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@every_mixing
def test_mixings_keep_input_and_type(mixing, dtype):
    rows = rows_of(1, dtype=dtype)
    before = rows.clone()
    mixed, _ = mixing(rows, 2)
    assert mixed.dtype == dtype
    assert torch.equal(rows, before)
    mixed.fill_(0)
    assert torch.equal(rows, before)
    exact = mixing(rows.double(), 2)[0]
    torch.testing.assert_close(mixing(rows, 2)[0].double(), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@every_mixing
def test_mixings_set_aside_rows_that_are_not_finite(mixing, value):
    rows = rows_of(2)
    rows[4, 1] = value
    kept = torch.arange(11) != 4
    mixed, left = mixing(rows, 2)
    torch.testing.assert_close(mixed, mixing(rows[kept], 1)[0])
    assert left == 1
    with pytest.raises(NonFiniteRows):
        mixing(rows, 0)


@pytest.mark.parametrize("size", [1e-42, 1e30, 3e38])
@every_mixing
def test_mixings_at_the_ends_of_the_range(mixing, size):
    rows = (rows_of(8).clamp(-1, 1) * size).float()
    assert mixing(rows, 2)[0].isfinite().all()
    assert mixing(torch.zeros(11, 3), 2)[0].isfinite().all()


@every_mixing
def test_mixings_check_their_input(mixing):
    with pytest.raises(ValueError, match="rows must be"):
        mixing(torch.zeros(3), 0)
    one = torch.tensor([[0.5, 0.5]])
    if mixing is not bucketing:
        torch.testing.assert_close(mixing(one, 0)[0], one)


@pytest.mark.parametrize(
    ("mixing", "options", "message"),
    [
        (nnm, {"num_corrupt": 11}, "n=11 num_corrupt=11"),
        (arc, {"num_corrupt": 11}, "n=11 num_corrupt=11"),
        (bucketing, {"num_corrupt": 1, "size": 0}, "size=0"),
        (static_clip, {"num_corrupt": 1, "max_norm": 0.0}, "max_norm=0.0"),
    ],
)
def test_mixings_refuse_bad_arguments(mixing, options, message):
    with pytest.raises(ValueError, match=message):
        mixing(rows_of(1), **options)


CHAINS = [("nnm",), ("static_clip", "nnm"), ("bucketing",), ("arc", "nnm"), ("nnm", "bucketing")]


@pytest.mark.parametrize(
    ("chain", "name"), list(product(CHAINS, RULES)), ids=lambda part: "+".join(part)[:40]
)
def test_a_chain_equals_its_steps_one_after_the_other(chain, name):
    """Without rows in between: only weights are carried from step to step."""
    rows = rows_of(5, n=31, d=70)
    rows[:3] += 10
    steps = [partial(MIXINGS[mixing]) for mixing in chain]
    defence = Defence(partial(RULES[name]), steps, make_generator)
    plain, left = rows, 3
    shared = make_generator()  # one generator for the pre-aggregators, in their order
    for mixing in chain:
        more = {"generator": shared} if mixing == "bucketing" else {}
        plain, left = MIXINGS[mixing](plain, left, **more)
    more = (
        {"generator": make_generator()} if name in ("median_of_means", "dnc", "sign_guard") else {}
    )
    torch.testing.assert_close(defence(rows, 3), RULES[name](plain, left, **more))


def test_a_chain_sets_aside_rows_that_are_not_finite():
    rows = rows_of(6, n=15)
    rows[9, 2] = torch.inf
    defence = Defence(partial(krum), [partial(nnm)])
    kept = torch.arange(15) != 9
    torch.testing.assert_close(defence(rows, 3), defence(rows[kept], 2))
    with pytest.raises(NonFiniteRows):
        defence(rows, 0)


def test_the_policy_covers_a_rule_of_the_users_own():
    def middle(rows, num_corrupt):
        return rows.median(dim=0).values

    rows = rows_of(6)
    rows[9] = torch.nan
    kept = torch.arange(11) != 9
    for before in ([], [partial(nnm)]):
        defence = Defence(partial(middle), before)
        torch.testing.assert_close(defence(rows, 3), defence(rows[kept], 2))


def test_a_pre_aggregator_of_the_users_own_need_not_mix_linearly():
    def squash(rows, num_corrupt, strength=1.0):
        return (strength * rows).tanh(), num_corrupt

    rows = rows_of(6, n=15)
    rows[9] = torch.inf
    kept = torch.arange(15) != 9
    defence = Defence(partial(krum), [partial(nnm), partial(squash, strength=0.5)])
    expected = krum((0.5 * nnm(rows[kept], 2)[0]).tanh(), 2)
    torch.testing.assert_close(defence(rows, 3), expected)
    plan = defence.plan(Geometry.of(rows[kept]), 2)
    assert plan.is_whole
    torch.testing.assert_close(plan.rule(rows[kept]), expected)


def test_mixed_geometry_is_the_geometry_of_the_mixed_rows():
    rows = rows_of(3, n=9, d=20)
    for mixing in MIXINGS.values():
        mixed, _ = mixing(rows, 2)
        weights, _ = rule_traits(mixing).mix(Geometry.of(rows), 2)
        ours, exact = Geometry.of(rows).mixed(weights), Geometry.of(mixed)
        torch.testing.assert_close(ours.squared, exact.squared)
        torch.testing.assert_close(ours.norms, exact.norms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 25, 26, 40])
def test_the_network_and_the_sort_give_the_same_bits(monkeypatch, dtype, n):
    columns.compile_now(dtype)
    rows = rows_of(n, n=n, d=70_001, dtype=dtype)
    rows[:, :500] = rows[:, :500].round()  # equal entries
    rows[:, 500:510] *= 1e30
    rows[n // 2 :, 510:600] = -0.0
    cases = [(0, n, 0), ((n - 1) // 2, n // 2 + 1, 0), (n // 4, n - n // 4, n - n // 4)]
    cases += [((n - 1) // 2, n // 2 + 1, keep) for keep in (1, n // 2, n) if keep]
    for low, high, keep in cases:
        monkeypatch.setattr(columns, "_WORTH", 0)
        compiled = columns.mean_of_ordered(rows, low, high, keep)
        strided = columns.mean_of_ordered(rows.T.contiguous().T, low, high, keep)
        monkeypatch.setattr(columns, "_WORTH", 1 << 62)
        sorted_ = columns.mean_of_ordered(rows, low, high, keep)
        assert compiled.numpy().tobytes() == sorted_.numpy().tobytes()
        assert compiled.numpy().tobytes() == strided.numpy().tobytes()
        exact = np.sort(rows.double().numpy(), axis=0)[low:high].mean(axis=0)
        if keep == 0:
            torch.testing.assert_close(compiled.double(), torch.from_numpy(exact))


def test_torch_and_numpy_sorts_give_the_same_bits(monkeypatch):
    rows = rows_of(1, n=25, d=3000, dtype=torch.float32)
    ours = columns.mean_of_ordered(rows, 5, 20, 20)
    monkeypatch.setattr(columns, "_sorted", lambda part: part.sort(dim=0).values)
    assert torch.equal(columns.mean_of_ordered(rows, 5, 20, 20), ours)


@pytest.mark.parametrize("n", range(1, 40))
def test_networks_sort_zeros_and_ones(n):
    """The 0-1 principle: what sorts these sorts everything; pruned networks where it counts."""
    random = np.random.default_rng(n)
    bits = random.integers(0, 2, (n, 4000))
    if n <= 12:
        bits = (np.arange(2**n)[None] >> np.arange(n)[:, None]) & 1
    for low, high in ((0, n), (n // 2, n // 2 + 1), (n // 4, n - n // 4)):
        block = bits.copy()
        for i, j in sorting_network(n, low, high):
            block[[i, j]] = np.minimum(block[i], block[j]), np.maximum(block[i], block[j])
        assert np.array_equal(block[low:high], np.sort(bits, axis=0)[low:high])


@pytest.mark.parametrize("path", ["network", "sort"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_both_paths_see_what_is_not_finite(monkeypatch, path, value):
    columns.compile_now()
    monkeypatch.setattr(columns, "_WORTH", 0 if path == "network" else 1 << 62)
    for row, column in ((0, 0), (6, 69_999), (3, 65_536)):
        rows = rows_of(1, n=7, d=70_000, dtype=torch.float32)
        rows[row, column] = value
        with pytest.raises(columns.Unclean):
            columns.mean_of_ordered(rows, 2, 5)
