from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
import torch

from byzshield_exp.aggregators import Defence, mean
from byzshield_exp.assignments import baseline, fractional_repetition, mols
from byzshield_exp.attacks import (
    Knowledge,
    adversaries,
    alie,
    alie_z,
    constant,
    inner_product_manipulation,
    reversed_gradient,
)
from byzshield_exp.distortion import worst_case


class Rows:
    """True gradients that a test makes up; counts which files were read."""

    num_classes = 10

    def __init__(self, rows, sizes=None):
        self.table, self.read = rows, set()
        self.sizes = sizes or [rows.shape[1]]

    def rows(self, files=None):
        chosen = list(range(len(self.table)) if files is None else files)
        self.read |= set(chosen)
        return self.table if files is None else self.table[chosen]

    def blank_row(self):
        return torch.empty_like(self.table[0])

    def poisoned_rows(self, files, poison):
        """The labels of file i are (i, i+1, ...) mod 10; they stand for its gradient."""
        files, size = list(files), self.table.shape[1]
        rows = [poison((torch.arange(size) + file) % 10, file) for file in files]
        return torch.stack([*rows, torch.zeros(size)])[: len(files)].to(self.table)

    def rows_at(self, step, params, files):
        """Made up as well: the rows, scaled by the first parameter, turned by the step."""
        return params[0].to(self.table) * self.table[list(files)].roll(step, dims=1)


def knowledge(rows, assignment, liars, files, step=0, **more):
    options = {
        "num_corrupt": 1, "defence": Defence(partial(mean)),
        "past": lambda step: torch.tensor([1.0 + step]), **more,
    }  # fmt: skip
    return Knowledge(
        truth=rows, assignment=assignment, liars=liars, files=files, seed=0, step=step, **options
    )


@pytest.fixture
def truth():
    return Rows(torch.from_numpy(np.random.default_rng(0).standard_normal((25, 40000))))


def test_reversed_gradient_reads_only_its_own_files(truth):
    forged = reversed_gradient(knowledge(truth, mols(15, 3), (0,), (3, 8)))
    assert torch.equal(forged, -100 * truth.table[[3, 8]])
    assert truth.read == {3, 8}


def test_constant_reads_nothing(truth):
    forged = constant(knowledge(truth, mols(15, 3), (0,), (3, 8)), value=-7.0)
    assert forged.shape == (2, 40000)
    assert (forged == -7).all()
    assert not truth.read


def test_ipm_is_the_negated_mean_over_honest_messages(truth):
    assignment, liars = mols(15, 3), (0, 5, 11)
    honest = [w for w in range(15) if w not in liars]
    sent = torch.cat([truth.table[assignment.files_of_worker[w]] for w in honest])
    forged = inner_product_manipulation(knowledge(truth, assignment, liars, (0,)), epsilon=0.5)
    torch.testing.assert_close(forged[0], -0.5 * sent.mean(dim=0))


def test_ipm_without_redundancy_is_the_mean_over_honest_workers(truth):
    rows = Rows(truth.table[:7])
    forged = inner_product_manipulation(knowledge(rows, baseline(7), (2,), (2,)), epsilon=1.0)
    honest = rows.table[[0, 1, 3, 4, 5, 6]].mean(dim=0)
    torch.testing.assert_close(forged[0], -honest)


def test_alie_is_mean_plus_z_population_deviations(truth):
    forged = alie(knowledge(truth, mols(15, 3), (0, 5), (1, 2)), z=1.5)
    table = truth.table.numpy()
    expected = torch.from_numpy(table.mean(axis=0) + 1.5 * table.std(axis=0))
    torch.testing.assert_close(forged, expected.expand(2, -1))


@pytest.mark.parametrize(
    ("workers", "liars", "z"),
    [
        (15, 2, 0.0966),
        (15, 5, 0.5244),
        (25, 5, 0.2533),
        (25, 9, 0.6745),
        (35, 13, 0.7479),
        (16, 7, 0.7647),
    ],
)
def test_alie_z_is_the_papers(workers, liars, z):
    """Values of the formula in the reference: (K - q - s) / (K - q), s = floor(K/2 + 1) - q."""
    assert alie_z(workers, liars) == pytest.approx(z, abs=6e-4)


def test_alie_z_is_never_negative_and_refuses_a_majority():
    assert alie_z(6, 1) == 0
    assert alie_z(15, 0) == pytest.approx(max(0, NormalDist().inv_cdf(7 / 15)))
    with pytest.raises(ValueError, match="q=8 of K=15"):
        alie_z(15, 8)


def test_random_sets_change_with_step_and_seed_and_nothing_else():
    first = adversaries.random(3, mols(15, 3), 5, seed=1)
    assert first == adversaries.random(3, mols(15, 3), 5, seed=1)
    assert len({adversaries.random(step, mols(15, 3), 5, seed=1) for step in range(20)}) > 10
    assert len({adversaries.random(3, mols(15, 3), 5, seed=seed) for seed in range(20)}) > 10
    fixed = {adversaries.fixed_random(step, mols(15, 3), 5, seed=1) for step in range(20)}
    assert len(fixed) == 1


@pytest.mark.parametrize("q", range(16))
def test_every_adversary_chooses_q_different_workers(q):
    groups = fractional_repetition(15, 3)
    chosen = [
        adversaries.random(0, groups, q, seed=0),
        adversaries.fixed_random(0, groups, q, seed=0),
        adversaries.explicit(0, groups, q, workers=list(range(q))),
        adversaries.worst_case(0, worst_case(groups, q)),
        adversaries.one_per_group(0, groups, q),
        adversaries.whole_group(0, groups, q),
    ]
    for workers in chosen:
        assert len(set(workers)) == q
        assert list(workers) == sorted(workers)
        assert all(0 <= worker < 15 for worker in workers)
    assert adversaries.none(0) == ()


def test_group_adversaries():
    groups = fractional_repetition(9, 3)
    assert adversaries.one_per_group(0, groups, 4) == (0, 1, 3, 6)
    assert adversaries.whole_group(0, groups, 4) == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="no groups"):
        adversaries.one_per_group(0, mols(15, 3), 4)


@pytest.mark.parametrize(
    ("workers", "message"),
    [([1, 2], "names 2 workers, but q=3"), ([1, 2, 2], "different"), ([1, 2, 15], "0 to 14")],
)
def test_explicit_workers_are_checked(workers, message):
    with pytest.raises(ValueError, match=message):
        adversaries.explicit(0, mols(15, 3), 3, workers=workers)
