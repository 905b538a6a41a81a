"""Every rule: its declared properties, the policy for bad rows, and hand-worked values."""

import inspect
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp import aggregators
from byzshield_exp.aggregators import (
    NonFiniteRows,
    bulyan,
    caf,
    centered_clip,
    cge,
    dnc,
    geometric_median,
    krum,
    mda,
    meamed,
    mean,
    median,
    median_of_means,
    monna,
    multi_krum,
    phocas,
    sign_guard,
    sign_majority,
    smea,
    squared_distances,
    trimmed_mean,
)
from byzshield_exp.aggregators.coordinates import coordinate_median
from byzshield_exp.aggregators.geometric import fixed_point
from byzshield_exp.aggregators.geometry import Geometry
from byzshield_exp.aggregators.rule import PROPERTIES, coordinate_wise, rule_traits, whole

RULES = {
    name: getattr(aggregators, name)
    for name in aggregators.__all__
    if rule_traits(getattr(aggregators, name)).kind not in ("", "mixing")
}
N, C = 11, 2


def having(*properties):
    chosen = {
        name: rule
        for name, rule in RULES.items()
        if set(properties) <= set(rule_traits(rule).properties)
    }
    return pytest.mark.parametrize("rule", chosen.values(), ids=chosen)


every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def rows_of(seed, n=N, d=5, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d))).to(dtype)


def test_what_the_rules_declare():
    assert len(RULES) >= 19
    declared = [rule_traits(rule) for rule in RULES.values()]
    assert all(set(traits.properties) <= set(PROPERTIES) for traits in declared)
    assert sum(traits.properties == PROPERTIES for traits in declared) >= 12
    assert {traits.kind for traits in declared} == {
        "coordinate-wise",
        "weighing",
        "choice",
        "whole",
    }


@having("permutation")
def test_the_order_of_rows_does_not_matter(rule):
    for seed in range(5):
        rows = rows_of(seed)
        shuffled = rows[torch.randperm(N, generator=torch.Generator().manual_seed(seed))]
        torch.testing.assert_close(rule(shuffled, C), rule(rows, C))


@having("equal rows")
def test_equal_rows_come_back(rule):
    row = torch.tensor([1.0, -1e-20, 0.0, 3e8])
    torch.testing.assert_close(rule(row.repeat(N, 1), C), row)
    torch.testing.assert_close(rule(torch.zeros(N, 4), C), torch.zeros(4))


@having("translation")
def test_moving_all_rows_moves_the_result(rule):
    shift = torch.tensor([3.0, -1.0, 0.5, 7.0, 0.0], dtype=torch.float64)
    for seed in range(5):
        rows = rows_of(seed)
        torch.testing.assert_close(rule(rows + shift, C), rule(rows, C) + shift)


@having("scale")
def test_scaling_all_rows_scales_the_result(rule):
    for seed in range(5):
        rows = rows_of(seed)
        for factor in (3.0, 1e-30, 1e30):
            torch.testing.assert_close(
                rule(rows * factor, C) / factor, rule(rows, C), rtol=1e-6, atol=1e-9
            )


def _forged(kind, honest, c):
    """Corrupt rows that try to pull the result away."""
    centre = honest.mean(dim=0)
    if kind == "alie":
        return (centre + 1.5 * honest.std(dim=0)).repeat(c, 1)
    if kind == "reversed":
        return -3 * honest[:c]
    return (centre + float(kind)).repeat(c, 1)


@pytest.mark.parametrize("kind", ["alie", "reversed", "1e0", "1e3", "-1e15", "1e30"])
@pytest.mark.parametrize(("n", "c"), [(11, 2), (7, 1), (15, 3)])
@having("bound")
def test_a_corrupt_minority_stays_within_the_promised_bound(rule, n, c, kind):
    """``||result - honest mean|| <= bound(n, c) * max ||honest row - honest mean||``."""
    for seed in range(4):
        honest = rows_of(seed, n=n - c)
        rows = torch.cat([_forged(kind, honest, c), honest])
        centre = honest.mean(dim=0)
        reach = (honest - centre).norm(dim=1).max()
        promised = rule_traits(rule).bound(n, c)
        assert math.isfinite(promised)
        assert (rule(rows, c) - centre).norm() <= promised * reach * (1 + 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("what", ["NaN row", "NaN entry", "Inf row", "-Inf entry", "two"])
@every_rule
def test_rows_that_are_not_finite_are_set_aside_and_counted(rule, what, dtype):
    rows = rows_of(4, dtype=dtype)
    bad = [2, 7] if what == "two" else [7]
    if what == "two":
        rows[2, 0], rows[7] = torch.nan, torch.inf
    elif "row" in what:
        rows[7] = float(what.split()[0])
    else:
        rows[7, 3] = float(what.split()[0])
    before = rows.clone()
    kept = torch.tensor([row not in bad for row in range(N)])
    result = rule(rows, C)
    assert torch.equal(rows.nan_to_num(1.5), before.nan_to_num(1.5))
    torch.testing.assert_close(result, rule(rows[kept], C - len(bad)))
    assert result.isfinite().all()
    with pytest.raises(NonFiniteRows, match=f"{len(bad)} of n=11 rows") as caught:
        rule(rows, len(bad) - 1)
    assert caught.value.rows == tuple(bad)


@every_rule
def test_no_finite_row_at_all(rule):
    with pytest.raises(NonFiniteRows):
        rule(torch.full((N, 3), torch.nan), C)
    with pytest.raises(ValueError, match="n=11"):  # or the formula is undefined
        rule(torch.full((N, 3), torch.nan), N)


@every_rule
def test_one_row_is_the_result_or_too_few(rule):
    row = torch.tensor([[1.0, -1.0, 1.0]])
    try:
        torch.testing.assert_close(rule(row, 0), row[0])
    except ValueError as error:
        assert "n=1" in str(error) or "got" in str(error)  # noqa: PT017
        assert rule in (krum, multi_krum, bulyan)


@every_rule
def test_nothing_corrupt(rule):
    rows = rows_of(5)
    result = rule(rows, 0)
    assert result.isfinite().all()
    if rule in (trimmed_mean, meamed, phocas, monna, mda, smea, caf, dnc, cge):
        torch.testing.assert_close(result, rows.mean(dim=0))


@pytest.mark.parametrize("num_corrupt", [5, 6, 10, 11, 12])
@every_rule
def test_too_many_corrupt_is_refused_or_finite(rule, num_corrupt):
    try:
        assert rule(rows_of(6), num_corrupt).isfinite().all()
    except ValueError as error:
        assert "n=11" in str(error)  # noqa: PT017
        assert f"num_corrupt={num_corrupt}" in str(error)  # noqa: PT017


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3), (3, 0)])
@every_rule
def test_other_shapes_are_refused(rule, shape):
    with pytest.raises(ValueError, match="rows must be"):
        rule(torch.zeros(shape), 1)


@every_rule
def test_other_types_and_negative_counts_are_refused(rule):
    with pytest.raises(ValueError, match="floating point"):
        rule(torch.zeros((7, 3), dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="n=7 num_corrupt=-1"):
        rule(torch.zeros(7, 3), -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@every_rule
def test_input_stays_and_the_result_has_its_type(rule, dtype):
    rows = rows_of(2, dtype=dtype)
    before = rows.clone()
    result = rule(rows, C)
    assert torch.equal(rows, before)
    assert result.dtype == dtype
    assert result.shape == (5,)
    wide = rule(rows.double(), C)
    torch.testing.assert_close(result.double(), wide, rtol=2e-2, atol=2e-2)
    result.fill_(0)  # not a view of the input
    assert torch.equal(rows, before)


@every_rule
def test_rows_in_any_memory_order(rule):
    rows = rows_of(7, d=300, dtype=torch.float32)
    transposed = rows.T.contiguous().T
    spread = torch.zeros(2 * N, 600)[::2, ::2]
    spread.copy_(rows)
    assert not transposed.is_contiguous()
    torch.testing.assert_close(rule(transposed, C), rule(rows, C))
    torch.testing.assert_close(rule(spread, C), rule(rows, C))


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30, 3e38])
@every_rule
def test_float32_at_the_ends_of_its_range(rule, size):
    rows = (rows_of(8).clamp(-1, 1) * size).float()
    result = rule(rows, C)
    assert result.isfinite().all()
    if "scale" in rule_traits(rule).properties and rule is not sign_guard:
        wide = rule(rows.double(), C)
        torch.testing.assert_close(result.double() / size, wide / size, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("size", [1e-310, 1e-200, 1e200, 1e300])
@having("scale")
def test_float64_at_the_ends_of_its_range(rule, size):
    rows = rows_of(8)
    torch.testing.assert_close(rule(rows * size, C) / size, rule(rows, C), rtol=1e-3, atol=1e-4)


def test_rows_that_need_gradients():
    rows = rows_of(1).requires_grad_()
    assert not median(rows, C).requires_grad
    assert not krum(rows, C).requires_grad


# Hand-worked values.


def test_hand_worked_coordinate_rules():
    rows = torch.tensor([[1.0, -5.0], [2.0, 1.0], [9.0, 3.0], [4.0, 0.0], [3.0, -1.0]])
    assert mean(rows).tolist() == pytest.approx([3.8, -0.4])
    assert median(rows).tolist() == [3.0, 0.0]
    assert median(rows[:4]).tolist() == [3.0, 0.5]
    assert median(rows[:4], even="lower").tolist() == [2.0, 0.0]
    assert trimmed_mean(rows, 1).tolist() == [3.0, 0.0]
    assert trimmed_mean(rows, 0).tolist() == pytest.approx([3.8, -0.4])
    assert sign_majority(rows).tolist() == [1.0, 0.0]
    # nearest four to the medians 3 and 0: 1 2 3 4 and -1 0 1 3
    assert meamed(rows, 1).tolist() == [2.5, 0.75]
    # nearest three to the trimmed means 3 and 0: 2 3 4 and -1 0 1, with c = 2
    assert phocas(rows, 2).tolist() == [3.0, 0.0]
    # Trimmed mean of 0 1 5 6 8 with c = 1 is 4; its nearest four are 1 5 6 8 (0 and 8 are both
    # 4 away and the window of the smaller wins): 0 1 5 6 reaches 4, 1 5 6 8 reaches 4.
    assert phocas(torch.tensor([[0.0], [1.0], [5.0], [6.0], [8.0]]), 1).tolist() == [3.0]
    # median 5, nearest four: 1 5 6 8 (4) against 0 1 5 6 (5)
    assert meamed(torch.tensor([[0.0], [1.0], [5.0], [6.0], [8.0]]), 1).tolist() == [5.0]


def test_median_of_means_by_hand():
    rows = torch.tensor([[1.0], [3.0], [10.0], [20.0], [4.0]])
    # buckets of 2, 2 and 1 rows: means 2, 15, 4
    assert median_of_means(rows, 1).tolist() == [4.0]
    assert median_of_means(rows, 1, num_buckets=1).tolist() == pytest.approx([7.6])
    assert median_of_means(rows, 1, num_buckets=5).tolist() == [4.0]
    shuffled = median_of_means(rows, 1, generator=np.random.default_rng(0))
    order = np.random.default_rng(0).permutation(5)
    buckets = [rows[torch.from_numpy(part)].mean() for part in np.array_split(order, 3)]
    assert shuffled.item() == pytest.approx(sorted(float(b) for b in buckets)[1])


def test_krum_by_hand():
    # On a line: 0, 1, 2, 10, 100. n = 5, c = 1: two nearest neighbours.
    rows = torch.tensor([[0.0], [1.0], [2.0], [10.0], [100.0]])
    # scores: 0: 1+4, 1: 1+1, 2: 1+4, 3: 64+81, 4: 8100+9604
    assert krum(rows, 1).tolist() == [1.0]
    # the default m = n-c-2 = 2: row 1, then of the equal rows 0 and 2 the one nearer to all others
    assert multi_krum(rows, 1).tolist() == pytest.approx([1.5])
    assert multi_krum(rows, 1, m=3).tolist() == pytest.approx([1.0])


def test_krum_with_other_conventions_by_hand():
    rows = torch.tensor([[0.0], [3.0], [4.0], [5.0], [20.0], [21.0]])  # n = 6, c = 1
    # three nearest, squared: 0: 9+16+25=50, 3: 1+4+9=14, 4: 1+1+16=18, 5: 1+4+25=30
    assert krum(rows, 1).tolist() == [3.0]
    # four nearest (n-c-1), squared: 3: 14+17^2=303, 4: 18+16^2=274, 5: 30+15^2=255
    assert krum(rows, 1, neighbours="n-c-1").tolist() == [5.0]
    # not squared, three nearest: 0: 12, 3: 1+2+3=6, 4: 1+1+4=6, 5: 1+2+5=8; nearer to all:
    # 3: 3+1+2+17+18=41, 4: 4+1+1+16+17=39
    assert krum(rows, 1, squared=False).tolist() == [4.0]
    # n-2c-3 = 1 row: Krum itself; n-c = 5 rows: all but 21 (20: 1+225+256, 21: 1+256+289)
    assert multi_krum(rows, 1, m="n-2c-3").tolist() == [3.0]
    assert multi_krum(rows, 1, m="n-c").tolist() == pytest.approx([32 / 5])


@pytest.mark.parametrize("n", [26, 60])
@pytest.mark.parametrize("seed", range(3))
def test_krum_picks_as_float64_does_beyond_25_rows(n, seed):
    """Rows of norm 50 that differ by 0.1: torch.cdist alone cancels above 25 rows."""
    random = np.random.default_rng(seed)
    centre = random.standard_normal(20_000)
    spread = random.standard_normal((n, 20_000)) * random.uniform(0.9, 1.1, (n, 1))
    rows = 50 * centre / np.linalg.norm(centre) + 0.1 * spread / np.sqrt(20_000)
    rows = torch.from_numpy(rows).float()
    exact = ((rows.double()[:, None] - rows.double()[None]) ** 2).sum(dim=2)
    scores = exact.sort(dim=1).values[:, 1 : n - 5 - 1].sum(dim=1)
    assert torch.equal(krum(rows, 5), rows[scores.argmin()])


def test_bulyan_by_hand():
    # n = 7, c = 1: five picks, then per coordinate the three nearest to the median of the picks.
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [1000.0]])
    # Four neighbours: 2 and 3 have 10 (1+1+4+4), and 2 is nearer to 1000, so 3 goes first.
    # Then among 0 1 2 4 5 1000 with three: 1 has 1+1+9, 2 has 1+4+4, 4 has 1+4+9: 2.
    # Among 0 1 4 5 1000 with two: 0 and 1 have 1+16 and 1+9, 4 has 1+9; 4 is nearer to 1000: 4.
    # Among 0 1 5 1000 with one: 0 and 1 have 1; 1 is nearer to all: 1. Then 0 5 1000: 0 (25, tie
    # with 5, which is nearer to 1000): 5.
    # Picked 3 2 4 1 5; the three nearest to their median 3 are 2 3 4.
    assert bulyan(rows, 1).tolist() == [3.0]
    # At once n-c-2 = 4 rows with four neighbours: 2, 3 (10), 1 and 4 (1+1+4+9); their middle two.
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.5], [5.0], [1000.0]])
    # scores: 0: 1+4+9+20.25, 1: 1+1+4+12.25=18.25, 2: 1+1+4+6.25=12.25, 3: 1+4+2.25+4=11.25,
    # 4.5: .25+2.25+6.25+12.25=21, 5: .25+4+9+16=29.25: 3 2 1 4.5, and their middle two 2 and 3.
    assert bulyan(rows, 1, one_shot=True).tolist() == [2.5]


@given(st.integers(0, 1000), st.integers(7, 15))
@settings(max_examples=30, deadline=None)
def test_bulyan_equals_a_plain_reading_of_the_paper(seed, n):
    num_corrupt = (n - 3) // 4
    rows = rows_of(seed, n=n, d=3)
    left, picked = list(range(n)), []
    for _ in range(n - 2 * num_corrupt):
        keep = max(1, len(left) - num_corrupt - 2)

        def score(a, left=tuple(left), keep=keep):
            near = sorted(float(((rows[a] - rows[b]) ** 2).sum()) for b in left)
            return round(sum(near[1 : 1 + keep]), 9), sum(near)

        picked.append(min(left, key=score))
        left.remove(picked[-1])
    chosen = rows[picked]
    centre = torch.from_numpy(np.median(chosen.numpy(), axis=0))
    order = (chosen - centre).abs().argsort(dim=0)[: n - 4 * num_corrupt]
    torch.testing.assert_close(bulyan(rows, num_corrupt), chosen.gather(0, order).mean(dim=0))


def test_monna_mda_and_cge_by_hand():
    rows = torch.tensor([[0.0], [4.0], [5.0], [7.0], [-2.0]])
    assert monna(rows, 2).tolist() == pytest.approx([2 / 3])  # 0, -2 and 4
    assert monna(rows, 2, trusted=3).tolist() == pytest.approx([16 / 3])  # 7, 5 and 4
    assert mda(rows, 2).tolist() == pytest.approx([16 / 3])  # 4 5 7: diameter 3
    # -2 0 4 5 and 0 4 5 7 have diameter 7; the second is closer together (104 against 131)
    assert mda(rows, 1).tolist() == [4.0]
    assert cge(rows, 2).tolist() == pytest.approx([2 / 3])  # norms 0 2 4 left of 0 2 4 5 7


@pytest.mark.parametrize("c", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_mda_and_smea_equal_an_enumeration(seed, c):
    rows = rows_of(seed, n=10, d=6)
    rows[:c] += 2
    subsets = [list(kept) for kept in combinations(range(10), 10 - c)]
    apart = (rows[:, None] - rows[None]).norm(dim=2)

    def diameter(kept):  # two subsets often have the same farthest pair
        return float(apart[kept][:, kept].max()), float(apart[kept][:, kept].square().sum())

    torch.testing.assert_close(mda(rows, c), rows[min(subsets, key=diameter)].mean(dim=0))

    def top(kept):
        return float(torch.linalg.eigvalsh(torch.cov(rows[kept].T, correction=0))[-1])

    torch.testing.assert_close(smea(rows, c), rows[min(subsets, key=top)].mean(dim=0))


def test_mda_far_beyond_an_enumeration():
    rows = rows_of(0, n=100, d=50)
    rows[:30] += 100
    torch.testing.assert_close(mda(rows, 30), rows[30:].mean(dim=0))


def test_smea_says_when_there_are_too_many_subsets():
    with pytest.raises(ValueError, match=r"at most 5,000,000 subsets.*n=60 num_corrupt=20"):
        smea(rows_of(0, n=60), 20)


@pytest.mark.parametrize("seed", range(5))
def test_caf_equals_a_plain_reading_of_the_paper(seed):
    rows = rows_of(seed, n=10, d=6).numpy()
    rows[:2] += 3
    weights, best, expected = np.ones(10), np.inf, None
    while weights.sum() > 10 - 2 * 2:
        centre = weights @ rows / weights.sum()
        seen = rows - centre
        values, vectors = np.linalg.eigh((weights[:, None] * seen).T @ seen / weights.sum())
        if values[-1] < best:
            best, expected = values[-1], centre
        spread = (seen @ vectors[:, -1]) ** 2
        weights = weights * (1 - spread / spread[weights > 0].max()).clip(0)
    torch.testing.assert_close(caf(torch.from_numpy(rows), 2), torch.from_numpy(expected))


def test_caf_by_hand():
    # Mean 20, one direction: spreads 400 400 400 400 6400 - 4/5 - row 4 goes; then all are equal.
    rows = torch.tensor([[0.0], [0.0], [0.0], [0.0], [100.0]])
    torch.testing.assert_close(caf(rows, 1), torch.tensor([0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_dnc_leaves_out_what_sticks_out(seed):
    rows = rows_of(seed, n=12, d=40)
    rows[[3, 8]] += 5
    kept = [row for row in range(12) if row not in (3, 8)]
    torch.testing.assert_close(dnc(rows, 2), rows[kept].mean(dim=0))
    # the same by a plain singular value decomposition
    _, _, right = torch.linalg.svd(rows - rows.mean(dim=0))
    scores = ((rows - rows.mean(dim=0)) @ right[0]) ** 2
    assert set(scores.argsort()[-2:].tolist()) == {3, 8}
    rounds = dnc(rows, 2, num_rounds=2, num_coordinates=10, generator=np.random.default_rng(1))
    assert rounds.isfinite().all()


def test_sign_guard_by_hand():
    # 6 rows of 4 entries, norms 2 2 2 2 200 2; row 4 is too long, row 5 has other signs.
    row = torch.tensor([1.0, 1.0, 1.0, -1.0])
    rows = torch.stack([row, row, row.flip(0), row.flip(0), 100 * row, -row])
    expected = torch.stack([row, row, row.flip(0), row.flip(0)]).mean(dim=0)
    torch.testing.assert_close(sign_guard(rows, 2, share=1.0), expected)
    # A row of norm 4 passes (at most 3 times the median) and is clipped to the median norm.
    rows[4] = 2 * row
    expected = torch.stack([row, row, row.flip(0), row.flip(0), row]).mean(dim=0)
    torch.testing.assert_close(sign_guard(rows, 2, share=1.0), expected)


def test_centered_clip_by_hand():
    rows = torch.tensor([[0.0], [1.0], [10.0]])
    # from zero with tau 2: (0 + 1 + 2) / 3 = 1, then 1 + (-1 + 0 + 2) / 3 = 4/3
    assert centered_clip(rows, tau=2.0, start="zero").tolist() == pytest.approx([1.0])
    assert centered_clip(rows, tau=2.0, start="zero", iterations=2).tolist() == pytest.approx(
        [4 / 3]
    )
    # from the mean 11/3: differences -11/3, -8/3, 19/3, clipped to 2: (-2 - 2 + 2) / 3
    assert centered_clip(rows, tau=2.0, start="mean").tolist() == pytest.approx([11 / 3 - 2 / 3])
    # from the median 1: differences -1, 0, 9; automatic tau is their median, 1: (-1 + 0 + 1) / 3
    assert centered_clip(rows, start="median").tolist() == pytest.approx([1.0])
    assert centered_clip(rows).tolist() == pytest.approx([1.0])  # there is no previous result
    # from the previous result 4 with tau 5: (-4 - 3 + 5) / 3
    previous = torch.tensor([4.0])
    assert centered_clip(rows, tau=5.0, previous=previous).tolist() == pytest.approx([4 - 2 / 3])


@pytest.mark.parametrize(("n", "b", "tau"), [(16, 7, 1.0), (16, 7, 10.0), (6, 2, 5.0)])
def test_centered_clip_converges_to_its_closed_form(n, b, tau):
    """Honest rows g, b attackers far along u: the fixed point is g + (b tau / (n - b)) u."""
    honest = rows_of(n, n=1, d=8)[0]
    rows = honest.repeat(n, 1)
    rows[:b, 0] += 1e9
    result = centered_clip(rows, tau=tau, iterations=500, start="median")
    expected = honest.clone()
    expected[0] += b * tau / (n - b)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(centered_clip(rows_of(3), tau=1e9), rows_of(3).mean(dim=0))


@pytest.mark.parametrize(("n", "b", "tau"), [(16, 7, 1.0), (16, 7, 10.0), (6, 2, 5.0)])
@pytest.mark.parametrize(("scale", "dtype"), [(1, torch.float64), (1e6, torch.float32)])
def test_the_fixed_point_of_clipping_is_its_closed_form(n, b, tau, scale, dtype):
    honest = rows_of(n, n=1, d=101)[0].double() * scale
    rows = honest.repeat(n, 1)
    rows[n - b :, 3] += 1e4 * scale
    found = centered_clip(rows.to(dtype), tau=tau * scale, start="median", tolerance=1e-9)
    moved = (found.double() - honest) / scale
    assert float(moved[3]) == pytest.approx(b * tau / (n - b), abs=1e-6)
    moved[3] = 0
    assert float(moved.abs().max()) < 1e-6


@pytest.mark.parametrize("tau", [1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, float("inf")])
@pytest.mark.parametrize("kind", ["far", "opposite", "beside"])
def test_the_fixed_point_of_clipping_is_found_in_a_hundred_iterations(tau, kind):
    """Of 16 rows 7 lie; d is below n. What is found solves the equation in float64."""
    rows = rows_of(7, n=16, d=5).double() + 1
    lies = {"far": rows[9:] * 1000, "opposite": -rows[9:] * 100, "beside": rows[:7] + 50}
    rows[9:] = lies[kind]
    geometry = Geometry.of(rows, coordinate_median(rows)[None])
    start = torch.zeros(18, dtype=torch.float64)
    start[16] = 1
    found = fixed_point(geometry.gram, start, 16, tau / geometry.scale, 100, 1e-6)
    assert found.iterations < 100
    point = found.weights[:16] @ rows
    away = rows - point
    distances = away.norm(dim=1)
    pull = (tau / distances).clamp(max=1)
    torch.testing.assert_close(found.distances * geometry.scale, distances)
    assert (pull[:, None] * away).sum(dim=0).norm() <= 1.1e-6 * (pull * distances).sum()
    if tau == float("inf"):
        torch.testing.assert_close(point, rows.mean(dim=0))


def test_the_fixed_point_of_clipping_at_its_edges():
    row = rows_of(0, n=1, d=7)
    for rows in (row, row.repeat(5, 1)):
        found = centered_clip(rows, tau=0.1, start="median", tolerance=1e-6)
        torch.testing.assert_close(found, row[0], rtol=1e-6, atol=0)
    many = rows_of(1, n=9, d=3)
    torch.testing.assert_close(
        centered_clip(many, tau=1e9, start="zero", tolerance=1e-6), many.mean(dim=0)
    )


def test_geometric_median_of_a_triangle_is_its_fermat_point():
    # Equilateral: the centre. Collinear: the middle point.
    root = 3**0.5
    triangle = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, root]], dtype=torch.float64)
    torch.testing.assert_close(geometric_median(triangle), triangle.mean(dim=0))
    line = torch.tensor([[0.0], [1.0], [50.0]], dtype=torch.float64)
    torch.testing.assert_close(geometric_median(line), line[1], atol=1e-3, rtol=0)


def test_geometric_median_in_few_iterations_by_hand():
    # ByzFL's: from zero, nu = 0.1. Norms 1, 2, 4: (1/1 + 2/2 + 4/4) / (1 + 1/2 + 1/4) = 12/7.
    rows = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    first = geometric_median(rows, nu=0.1, start="zero", max_iterations=1)
    assert first.tolist() == pytest.approx([12 / 7])
    # Then 5/7, 2/7, 16/7 away: (7/5 + 7 + 7/4) / (7/5 + 7/2 + 7/16) = 203/106.75.
    second = geometric_median(rows, nu=0.1, start="zero", max_iterations=2)
    assert second.tolist() == pytest.approx([(7 / 5 + 7 + 7 / 4) / (7 / 5 + 7 / 2 + 7 / 16)])
    # From the mean 7/3 with nu = 1: distances 4/3, 1 (floored), 5/3.
    from_mean = geometric_median(rows, nu=1.0, max_iterations=1)
    assert from_mean.tolist() == pytest.approx([(3 / 4 + 2 + 12 / 5) / (3 / 4 + 1 + 3 / 5)])


@pytest.mark.parametrize("seed", range(5))
def test_geometric_median_is_a_minimum_of_the_sum_of_distances(seed):
    rows = rows_of(seed, n=9, d=4)

    def total(point):
        return float((rows - point).norm(dim=1).sum())

    found = geometric_median(rows)
    random = np.random.default_rng(seed)
    for scale in (1e-3, 1e-1, 1.0):
        for _ in range(50):
            step = torch.from_numpy(random.standard_normal(4)) * scale
            assert total(found) <= total(found + step) + 1e-9


@pytest.mark.parametrize("n", [5, 26, 60])
def test_distances_are_right_at_any_number_of_rows(n):
    random = np.random.default_rng(n)
    centre = random.standard_normal(1000)
    centre *= 50 / np.linalg.norm(centre)
    rows = torch.from_numpy(centre + 0.003 * random.standard_normal((n, 1000))).float()
    exact = (rows.double()[:, None] - rows.double()[None]).square().sum(dim=2)
    torch.testing.assert_close(squared_distances(rows), exact, rtol=1e-9, atol=1e-12)


def test_distances_within_far_groups_are_right():
    """Groups at 1e12, within which rows differ by 1, within which two differ by 1e-6."""
    rows = rows_of(0, n=9, d=50)
    rows[3:6] += 1e12 * torch.ones(50).double()
    rows[6:] -= 3e9
    rows[5] = rows[4]
    rows[8] = rows[7] + 1e-6
    exact = (rows[:, None] - rows[None]).square().sum(dim=2)
    torch.testing.assert_close(squared_distances(rows), exact, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("rule", "n", "num_corrupt"),
    [(krum, 6, 2), (multi_krum, 6, 2), (bulyan, 10, 2), (trimmed_mean, 4, 2), (caf, 4, 2),
     (meamed, 4, 2), (phocas, 4, 2), (mda, 4, 4), (smea, 4, 4), (monna, 4, 4), (cge, 4, 4),
     (dnc, 4, 4)],
)  # fmt: skip
def test_an_undefined_formula_names_both_numbers(rule, n, num_corrupt):
    with pytest.raises(ValueError, match=f"n={n} num_corrupt={num_corrupt}"):
        rule(rows_of(0, n=n), num_corrupt)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (multi_krum, {"m": 0}, "m=0"),
        (multi_krum, {"m": "n-9c"}, "m=-7 n=11 num_corrupt=2"),
        (multi_krum, {"m": "half"}, "m='half'"),
        (krum, {"neighbours": "n"}, "neighbours=11 n=11"),
        (median_of_means, {"num_buckets": 12}, "num_buckets=12 n=11"),
        (geometric_median, {"smoothing": 0.0}, "smoothing=0.0"),
        (geometric_median, {"nu": -1.0}, "nu=-1.0"),
        (centered_clip, {"tau": 0.0}, "tau=0.0"),
        (centered_clip, {"iterations": 0}, "iterations=0"),
        (centered_clip, {"tolerance": 0.0}, "tolerance=0.0"),
        (monna, {"trusted": 11}, "trusted=11 n=11"),
        (dnc, {"num_rounds": 0}, "num_rounds=0"),
        (dnc, {"filter_fraction": 6.0}, "filter_fraction=6.0"),
        (sign_guard, {"low": 2.0}, "low=2.0"),
    ],
)
def test_other_bad_arguments(rule, options, message):
    with pytest.raises(ValueError, match=message):
        rule(rows_of(0), C, **options)


@every_rule
def test_signatures_are_those_of_a_rule(rule):
    names = list(inspect.signature(rule).parameters)
    assert names[:2] == ["rows", "num_corrupt"]


def test_a_trusted_row_keeps_its_number():
    rows = torch.tensor([[torch.nan], [100.0], [100.1], [0.0], [0.1], [0.2], [0.3]])
    torch.testing.assert_close(monna(rows, 5, trusted=2), torch.tensor([100.05]))
    with pytest.raises(NonFiniteRows) as caught:
        monna(rows, 4, trusted=0)
    assert caught.value.rows == (0,)
    with pytest.raises(ValueError, match="trusted=9 n=7"):
        monna(rows, 4, trusted=9)


@pytest.mark.parametrize("declare", [coordinate_wise(), whole()])
def test_a_declared_rule_of_the_users_own_is_under_the_policy(declare):
    def clamped(rows, num_corrupt):
        middle = rows.median(dim=0).values
        return rows.clamp(middle - 1, middle + 1).mean(dim=0)

    rule = declare(clamped)
    for bad in (torch.nan, torch.inf):
        rows = rows_of(1)
        rows[4, 2] = bad
        kept = torch.arange(N) != 4
        torch.testing.assert_close(rule(rows, C), clamped(rows[kept], 1))
        with pytest.raises(NonFiniteRows):
            rule(rows, 0)


@pytest.mark.parametrize("rule", [trimmed_mean, meamed, phocas, mean, bulyan, median])
def test_the_largest_float64_rows_do_not_overflow(rule):
    rows = torch.tensor([[1e308], [1.2e308], [1.1e308], [1.15e308]], dtype=torch.float64)
    rows = torch.cat([rows, rows])[: 7 if rule is bulyan else 4]
    result = float(rule(rows, 1))
    assert 1e308 <= result <= 1.2e308


@every_rule
def test_the_bits_depend_on_neither_threads_nor_memory(rule):
    rows = rows_of(3, d=300_001, dtype=torch.float32)
    before, results = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 2, 2):
            torch.set_num_threads(threads)
            results.add(rule(rows.clone(), C).numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(results) == 1


def test_distances_of_rows_that_are_not_finite_name_the_rows():
    rows = rows_of(1)
    rows[3, 0] = torch.inf
    with pytest.raises(NonFiniteRows) as caught:
        squared_distances(rows)
    assert caught.value.rows == (3,)


def test_a_previous_result_is_checked():
    previous = torch.full((5,), torch.nan)
    with pytest.raises(ValueError, match="needs a finite previous of 5 entries"):
        centered_clip(rows_of(1), C, previous=previous.double())


@pytest.mark.parametrize("num_corrupt", [2.5, 2.0, True, "2"])
@every_rule
def test_num_corrupt_is_a_whole_number(rule, num_corrupt):
    with pytest.raises(ValueError, match="whole number"):
        rule(rows_of(1), num_corrupt)
