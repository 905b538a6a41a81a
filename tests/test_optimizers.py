"""Schedules of the learning rate, and what an optimizer refuses."""

import math

import pytest
import torch

from byzshield_exp.optimizers import sgd


def rates(steps, **options):
    params = torch.zeros(3)
    optimizer, scheduler = sgd(params, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        params.grad = torch.zeros(3)
        optimizer.step()
        scheduler.step()
    return found


def test_the_schedules_are_their_formulas():
    step = rates(7, lr=0.4, decay=0.5, decay_every=3)
    assert step == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1])
    assert rates(5, lr=0.4, schedule="constant") == [0.4] * 5
    cosine = rates(13, lr=0.4, schedule="cosine", horizon=10)
    assert cosine[:11] == pytest.approx(
        [0.4 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(11)]
    )
    assert cosine[10:] == pytest.approx([0, 0, 0], abs=1e-16)  # it does not rise again


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "cosine"}, "schedule=cosine horizon=None"),
        ({"horizon": 10}, "schedule=step horizon=10"),
        ({"schedule": "cosine", "horizon": 0}, "horizon=0"),
        ({"schedule": "constant", "decay": 0.9}, "decay=0.9 is of schedule=step"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"nesterov": True, "momentum": 0.0}, "momentum > 0"),
    ],
)
def test_what_is_out_of_range_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        sgd(torch.zeros(3), **options)


def test_a_cosine_goes_on_after_a_resume(run, tmp_path):
    cosine = ("optimizer.schedule=cosine", "optimizer.horizon=8")
    whole = run(*cosine, "steps=6", folder=tmp_path / "whole")
    run(*cosine, "steps=3", folder=tmp_path / "parts")
    parts = run(*cosine, "steps=6", folder=tmp_path / "parts")
    assert parts["parameters_sha256"] == whole["parameters_sha256"]
    other = run("optimizer.schedule=constant", "steps=6", folder=tmp_path / "other")
    assert other["parameters_sha256"] != whole["parameters_sha256"]
