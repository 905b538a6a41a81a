"""What a peer makes of its part: against closed forms, and the paper's own step in float64."""

import math

import pytest
import torch

from byzshield_exp.training.btard.clip import Clipping, centre
from byzshield_exp.training.btard.parts import parts

SIZE = 37
DISTANCES = [0.001, 0.02, 0.3, 1.0, 3.0, math.inf]  # radii, in the usual distance of a part


def rows_of(count, size=SIZE, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def attacked(far=1000.0):
    """Nine rows and seven opposite ones, ``[16, 37]``."""
    rows = rows_of(16) + 1
    rows[9:] = -far * rows[:7]
    return rows


def by_formula(rows, tau, steps=20_000):
    """The paper's step ``v + mean_i (x_i - v) min(1, tau / ||x_i - v||)`` in float64."""
    rows = rows.double()
    point = rows.median(dim=0).values
    for _ in range(steps):
        apart = rows - point
        step = (apart * (tau / apart.norm(dim=1)).clamp(max=1)[:, None]).mean(dim=0)
        point = point + step
        if float(step.norm()) <= 1e-13 * float(rows.abs().max()):
            break
    return point


@pytest.mark.parametrize("scale", [1.0, 1e6])
@pytest.mark.parametrize(
    ("n", "b", "tau", "off"), [(16, 7, 1, 7 / 9), (16, 7, 10, 70 / 9), (6, 2, 5, 2.5)]
)
def test_far_rows_move_the_centre_as_the_closed_form_says(n, b, tau, off, scale):
    rows = torch.zeros(n, SIZE)
    rows[n - b :, 3] = 1e6 * scale
    point = centre(rows, Clipping(tau * scale, 1e-9)).point
    assert float(point[3]) == pytest.approx(off * scale, rel=1e-6)
    assert float(point.norm()) == pytest.approx(off * scale, rel=1e-6)


@pytest.mark.parametrize("share", DISTANCES)
@pytest.mark.parametrize("far", [0.6, 1.0, 1e3, 1e6])
def test_few_iterations_end_where_the_formula_ends(share, far):
    rows = attacked(far)
    tau = share * math.sqrt(SIZE)
    found = centre(rows, Clipping(tau, 1e-8))
    assert found.iterations <= 100
    assert found.residual <= 1e-8
    apart = rows.double() - found.point.double()
    pull = apart * (tau / apart.norm(dim=1)).clamp(max=1)[:, None]
    rounding = 2**-22 * len(rows) * float(found.point.norm())
    assert float(pull.sum(dim=0).norm()) <= 1e-8 * float(pull.norm(dim=1).sum()) + rounding


@pytest.mark.parametrize("share", [0.3, 1.0, 3.0])
def test_it_is_the_fixed_point_of_the_papers_step(share):
    rows = rows_of(16, seed=1)
    rows[9:] += 5
    tau = share * math.sqrt(SIZE)
    point = centre(rows, Clipping(tau, 1e-9)).point
    torch.testing.assert_close(point.double(), by_formula(rows, tau), rtol=0, atol=2e-7)


def test_an_infinite_radius_is_the_mean():
    rows = attacked()
    point = centre(rows, Clipping(math.inf, 1e-6)).point
    assert torch.equal(point, rows.double().mean(dim=0).float())


@pytest.mark.parametrize("tau", [1e-6, 1.0, math.inf])
@pytest.mark.parametrize("count", [1, 2, 16])
@pytest.mark.parametrize("size", [1, 5])
def test_equal_rows_come_back(tau, count, size):
    row = rows_of(1, size)
    found = centre(row.repeat(count, 1), Clipping(tau, 1e-6))
    assert torch.equal(found.point, row[0])
    assert (found.clipped, found.residual) == (0, 0)


def test_nothing_to_aggregate():
    assert centre(torch.empty(0, 3), Clipping(1.0, 1e-6)).point.isnan().all()
    assert centre(torch.ones(4, 0), Clipping(1.0, 1e-6)).point.shape == (0,)


@pytest.mark.parametrize(("size", "count"), [(16, 16), (37, 16), (3, 16), (0, 4), (7, 1)])
def test_parts_cover_a_vector_once_and_evenly(size, count):
    places = parts(size, count)
    assert [place for where in places for place in range(size)[where]] == list(range(size))
    sizes = {where.stop - where.start for where in places}
    assert len(places) == count
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("tau", [0.1, 5.0, math.inf])
def test_bits_depend_on_the_rows_of_the_part_alone(tau):
    """Neither on where the part lies in a row, nor on how rows came to be in memory."""
    clipping, rows = Clipping(tau, 1e-6), rows_of(16, size=200_003)
    for where in (parts(200_003, 3)[1], slice(1, 8)):
        view = centre(rows[:, where], clipping).point
        stacked = torch.stack([row[where].clone() for row in rows])
        assert torch.equal(view, centre(stacked, clipping).point)
