"""V2: numbers against NumPy, no honest part above the bound, and the share of lies it misses."""

import math

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from byzshield_exp.training.btard import lottery
from byzshield_exp.training.btard.clip import Clipping, centre
from byzshield_exp.training.btard.sums import lengths_of, numbers, sums, suspicious, unbalanced

SIZES = 1, 3, 40, 3000


def part_of(number):
    """An honestly clipped part of its own kind: rows, centre, clipping."""
    random = np.random.default_rng(number)
    n, size = int(random.integers(1, 18)), SIZES[number % 4]
    rows = random.standard_normal((n, size)) + random.choice([0, 30])
    rows[: (n - 1) // 2] *= random.choice([1, 1000, -1000])
    tau = math.sqrt(size) * random.choice([0.02, 0.3, 1, 10, math.inf])
    scale = random.choice([1, 1, 1e-42, 1e30])  # rounding is coarser below 1e-38
    rows, clipping = torch.from_numpy(scale * rows).float(), Clipping(float(scale * tau), 1e-6)
    return rows, centre(rows, clipping).point, clipping


def drawn(number, projections, size):
    return lottery.directions(number.to_bytes(32, "little"), 0, projections, size)


def is_unbalanced(s, nu, point, clipping):
    """Of ``s [n, p, k]`` and ``nu [n, p]``, with the same centre in each part."""
    norms = np.full(nu.shape[1], np.linalg.norm(point.double().numpy()))
    return unbalanced(s, nu, np.ones(nu.shape, dtype=bool), norms, clipping)


@pytest.mark.parametrize("tau", [0.5, 40.0, math.inf])
def test_numbers_are_those_of_numpy(tau):
    rows = torch.randn(5, 40_000, generator=torch.Generator().manual_seed(0))
    middle, directions = rows[0] * 0.5, drawn(0, 2, 40_000)
    s, nu = sums(list(rows), middle, directions, tau)
    apart = rows.double().numpy() - middle.double().numpy()
    lengths = np.linalg.norm(apart, axis=1)
    clipped = apart * np.minimum(1, tau / lengths)[:, None]
    np.testing.assert_allclose(nu, lengths, rtol=1e-12)
    np.testing.assert_allclose(s, clipped @ directions.double().numpy().T, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 7, 1000, (1 << 14) + 1, 50_000])
def test_bits_do_not_depend_on_what_else_is_summed(size):
    rows = list(torch.randn(16, size, generator=torch.Generator().manual_seed(1)))
    middle, directions = rows[3] * 0.1, drawn(1, 2, size)
    s, nu = numbers(rows, [True] * 16, middle, directions, 1.0)
    for some in ([0], [5], [5, 0], [1, 5, 9, 11, 2]):
        again = numbers([rows[at] for at in some], [True] * len(some), middle, directions, 1.0)
        assert (again[0].tobytes(), again[1].tobytes()) == (s[some].tobytes(), nu[some].tobytes())


def test_lengths_have_the_same_bits_with_any_number_of_threads():
    """A peer who knows the others' could tell whose verdict differs."""
    vector = torch.randn(300_001, generator=torch.Generator().manual_seed(0))
    vector[:2] = torch.tensor([1e30, torch.nan])
    parts = [slice(0, 1), slice(1, 2), slice(2, 300_001), slice(300_001, 300_001)]
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(lengths_of(vector, parts).tolist())
    assert found[0] == found[1]
    assert found[0][:2] + found[0][3:] == [pytest.approx(1e30), 0, 0]
    assert found[0][2] == pytest.approx(float(vector[2:].double().norm()))


def test_rows_that_are_not_finite_count_as_nothing():
    rows = [torch.ones(3), torch.full((3,), torch.nan)]
    s, nu = numbers(rows, [True, False], torch.zeros(3), drawn(0, 1, 3), math.inf)
    assert (s[1], nu[1]) == (0, 0)
    assert nu[0] == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize("count", [100, pytest.param(1500, marks=pytest.mark.slow)])
def test_no_honest_part_is_above_half_of_the_bound(count):
    for number in range(count):
        rows, point, clipping = part_of(number)
        s, nu = numbers(
            list(rows), [True] * len(rows), point, drawn(number, 3, len(point)), clipping.tau
        )
        assert not is_unbalanced(2 * s[:, None], nu[:, None], point, clipping).any(), number


def test_a_shift_is_missed_as_often_as_a_normal_number_is_small():
    rows, trials, factor = torch.randn(16, 40, generator=torch.Generator().manual_seed(2)), 3000, 10
    clipping = Clipping(math.inf, 1e-6)
    point = centre(rows, clipping).point
    nu = (rows.double() - point.double()).norm(dim=1)
    bound = 6 * (clipping.tolerance * float(nu.sum()) + 16 * 2**-24 * float(point.norm()))
    moved = point + factor * bound / 16 / math.sqrt(2) * torch.eye(40)[:2].sum(dim=0)
    found = [
        numbers(list(rows), [True] * 16, moved, drawn(number, 2, 40), math.inf)
        for number in range(trials)
    ]
    s, nu = np.stack([one[0] for one in found], axis=1), np.stack([one[1] for one in found], axis=1)
    once = math.erf(1 / (factor * math.sqrt(2)))
    assert once == pytest.approx(0.080, abs=5e-4)
    for projections in (1, 2):
        share, expected = (
            1 - float(is_unbalanced(s[:, :, :projections], nu, moved, clipping).mean()),
            once**projections,
        )
        assert abs(share - expected) <= 3 * math.sqrt(expected * (1 - expected) / trials)


def test_more_than_half_must_be_far_from_a_suspicious_part():
    nu = np.array([[3.0, 3, 3], [3, 3, 0], [3, 0, 0], [0, 0, 0]])
    counted = np.ones((4, 3), dtype=bool)
    assert suspicious(nu, counted, 2.0).tolist() == [True, False, False]
    assert suspicious(nu, counted, 3.0).tolist() == [False] * 3
    assert suspicious(nu, counted, math.inf).tolist() == [False] * 3
    counted[0, 0] = False
    assert suspicious(nu, counted, 2.0).tolist() == [False] * 3
