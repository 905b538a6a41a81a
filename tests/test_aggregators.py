import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp import aggregators
from byzshield_exp.aggregators import (
    bulyan,
    geometric_median,
    krum,
    mean,
    median,
    median_of_means,
    multi_krum,
    sign_majority,
    squared_distances,
    trimmed_mean,
)

RULES = {
    name: getattr(aggregators, name)
    for name in aggregators.__all__
    if "num_corrupt" in inspect.signature(getattr(aggregators, name)).parameters
}
ROBUST = {name: rule for name, rule in RULES.items() if name not in ("mean", "sign_majority")}


def rows_of(seed, n=11, d=5, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d))).to(dtype)


def test_all_rules_of_the_configuration_are_tested():
    assert len(RULES) == 9


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_order_of_rows_does_not_matter(rule):
    rows = rows_of(1)
    if rule is median_of_means:
        pytest.skip("its buckets are of neighbouring rows")
    shuffled = rows[torch.randperm(11, generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(rule(shuffled, 2), rule(rows, 2))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_equal_rows_come_back(rule):
    row = torch.tensor([1.0, -1.0, 0.0, 1.0])  # its own sign, for sign_majority
    torch.testing.assert_close(rule(row.repeat(11, 1), 2), row)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_input_stays_and_the_result_has_its_type(rule, dtype):
    rows = rows_of(2, dtype=dtype)
    before = rows.clone()
    result = rule(rows, 2)
    assert torch.equal(rows, before)
    assert result.dtype == dtype
    assert result.shape == (5,)
    result.fill_(0)  # not a view of the input
    assert torch.equal(rows, before)


@pytest.mark.parametrize("value", [1e3, -1e6, -1e15, 1e30])
@pytest.mark.parametrize("rule", ROBUST.values(), ids=ROBUST)
def test_a_corrupt_minority_cannot_pull_the_result_out_of_the_honest(rule, value):
    rows = rows_of(3)
    honest = rows[2:]
    forged = rows.clone()
    forged[:2] = value
    result = rule(forged, 2)
    reach = (honest - honest.mean(dim=0)).norm(dim=1).max()
    assert (result - honest.mean(dim=0)).norm() <= 2 * reach


def test_hand_worked_coordinate_rules():
    rows = torch.tensor([[1.0, -5.0], [2.0, 1.0], [9.0, 3.0], [4.0, 0.0], [3.0, -1.0]])
    assert mean(rows).tolist() == pytest.approx([3.8, -0.4])
    assert median(rows).tolist() == [3.0, 0.0]
    assert median(rows[:4]).tolist() == [3.0, 0.5]
    assert trimmed_mean(rows, 1).tolist() == [3.0, 0.0]
    assert trimmed_mean(rows, 0).tolist() == pytest.approx([3.8, -0.4])
    assert sign_majority(rows).tolist() == [1.0, 0.0]


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
    # Distances squared on a line: 0, 1, 2, 10, 100. n = 5, c = 1: two nearest neighbours.
    rows = torch.tensor([[0.0], [1.0], [2.0], [10.0], [100.0]])
    # scores: 0: 1+4, 1: 1+1, 2: 1+4, 3: 64+81, 4: 8100+9604
    assert krum(rows, 1).tolist() == [1.0]
    # m = 2: row 1, then of the equal rows 0 and 2 the one nearer to all others
    assert multi_krum(rows, 1).tolist() == pytest.approx([1.5])
    assert multi_krum(rows, 1, m=3).tolist() == pytest.approx([1.0])


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


@pytest.mark.parametrize("n", [5, 26, 60])
def test_distances_are_right_at_any_number_of_rows(n):
    """torch.cdist alone switches to a cancelling formula above 25 rows."""
    random = np.random.default_rng(n)
    centre = random.standard_normal(1000)
    centre *= 50 / np.linalg.norm(centre)
    rows = torch.from_numpy(centre + 0.003 * random.standard_normal((n, 1000))).float()
    exact = (rows.double()[:, None] - rows.double()[None]).square().sum(dim=2)
    torch.testing.assert_close(squared_distances(rows), exact, rtol=1e-12, atol=1e-12)


def test_geometric_median_of_a_triangle_is_its_fermat_point():
    # Equilateral: the centre. Collinear: the middle point.
    root = 3**0.5
    triangle = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, root]], dtype=torch.float64)
    torch.testing.assert_close(geometric_median(triangle), triangle.mean(dim=0))
    line = torch.tensor([[0.0], [1.0], [50.0]], dtype=torch.float64)
    torch.testing.assert_close(geometric_median(line), line[1], atol=1e-3, rtol=0)


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


@pytest.mark.parametrize(
    ("rule", "n", "num_corrupt"),
    [(krum, 6, 2), (multi_krum, 6, 2), (bulyan, 10, 2), (trimmed_mean, 4, 2), (krum, 9, -1)],
)
def test_an_undefined_formula_names_both_numbers(rule, n, num_corrupt):
    with pytest.raises(ValueError, match=f"n={n} num_corrupt={num_corrupt}"):
        rule(rows_of(0, n=n), num_corrupt)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="m=0"):
        multi_krum(rows_of(0), 1, m=0)
    with pytest.raises(ValueError, match="num_buckets=12 n=11"):
        median_of_means(rows_of(0), 1, num_buckets=12)
    with pytest.raises(ValueError, match="smoothing"):
        geometric_median(rows_of(0), smoothing=0.0)
