"""Attacks on gradients of a GPU: what they forge of the same ones in float64 on the CPU."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch

from byzshield_exp import attacks
from byzshield_exp.aggregators import Defence, mean
from byzshield_exp.assignments import mols
from byzshield_exp.attacks import Knowledge, alie, gaussian
from byzshield_exp.attacks.bare import GivenRows
from byzshield_exp.distortion import worst_case

FUNCTIONS = {
    name: function
    for name, function in vars(attacks).items()
    if inspect.isfunction(function)
    and next(iter(inspect.signature(function).parameters)) == "knowledge"
}
WRAPPERS = ("majorities_only", "fixed_disagreement")
OPTIONS = {"delayed_gradient": {"delay": 3}, "mimic": {"warmup": 2}}
BOUND = {
    **{
        name: partial(function, **OPTIONS.get(name, {}))
        for name, function in FUNCTIONS.items()
        if name not in (*WRAPPERS, "mixed")
    },
    **{f"{name}-alie": partial(FUNCTIONS[name], attack=partial(alie, z=1.0)) for name in WRAPPERS},
    **{f"{name}-noise": partial(FUNCTIONS[name], attack=gaussian) for name in WRAPPERS},
    "alie-honest": partial(alie, z=1.0, ddof=1, population="honest"),
    "alie-liars": partial(alie, z=1.0, population="liars"),
    "min_max-sign": partial(FUNCTIONS["min_max"], direction="sign"),
    "min_sum-unit": partial(FUNCTIONS["min_sum"], direction="unit"),
    "gaussian_noise-relative": partial(FUNCTIONS["gaussian_noise"], sigma=0.1, relative=True),
    "random_direction-global": partial(FUNCTIONS["random_direction"], scope="global"),
}
ASSIGNMENT = mols(15, 3)
LIARS = worst_case(ASSIGNMENT, 4).workers
FILES = (3, 7, 8, 24)


class Truth(GivenRows):
    """Gradients that are made up: of other labels, and of other steps too."""

    def __init__(self, rows):
        super().__init__(rows)
        self.table, self.num_classes = rows, 10
        self.sizes = [rows.shape[1] - 20, 15, 4, 1]

    def poisoned_rows(self, files, poison):
        labels = torch.arange(self.table.shape[1], device=self.table.device)
        rows = [poison((labels + file) % 10, file) for file in files]
        return torch.stack(rows).to(self.table)

    def rows_at(self, step, params, files):
        return params[0].to(self.table) * self.table[list(files)].roll(step, dims=1)


def forged(attack, rows, step=5):
    params = rows.new_ones(3)
    return attack(
        Knowledge(
            truth=Truth(rows), assignment=ASSIGNMENT, liars=LIARS, files=FILES, seed=0, step=step,
            num_corrupt=worst_case(ASSIGNMENT, 4).upper_bound, defence=Defence(partial(mean)),
            past=lambda step: params * (1 + step),
        )
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(BOUND))
def test_what_is_forged_is_that_of_the_cpu(gpu, name):
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((25, 20_000), np.float32))
    rows = rows[:, : min(gpu.width, 20_000)]
    found, wanted = forged(BOUND[name], rows.to("cuda")), forged(BOUND[name], rows.double())
    assert found.device.type == "cuda"
    assert found.dtype == torch.float32
    # Sums over 25 rows in float32: 25 roundings of 6e-8, and the root of a variance halves none.
    largest = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(found.cpu().double(), wanted, rtol=0, atol=1e-5 * largest)
