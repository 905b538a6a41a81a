"""Schedules of the learning rate, and what an optimizer refuses."""

import math

import pytest
import torch

from byzshield_exp.optimizers import adam, sgd


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


@pytest.mark.slow
def test_a_cosine_goes_on_after_a_resume(run, tmp_path):
    cosine = ("optimizer.schedule=cosine", "optimizer.horizon=8")
    whole = run(*cosine, "steps=6", folder=tmp_path / "whole")
    run(*cosine, "steps=3", folder=tmp_path / "parts")
    parts = run(*cosine, "steps=6", folder=tmp_path / "parts")
    assert parts["parameters_sha256"] == whole["parameters_sha256"]
    other = run("optimizer.schedule=constant", "steps=6", folder=tmp_path / "other")
    assert other["parameters_sha256"] != whole["parameters_sha256"]


ADAM = {"lr": 0.02, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3}


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_is_its_algorithm(decoupled):
    """Five steps by the papers' formulas, in float64."""
    gradients = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).double()
    params = torch.ones(4, dtype=torch.float64)
    optimizer, _ = adam(params, **ADAM, weight_decay=0.1, decoupled=decoupled)
    x, m, v = params.clone(), 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        params.grad = gradient.clone()
        optimizer.step()
        g = gradient if decoupled else gradient + 0.1 * x
        x = x * (1 - 0.02 * 0.1) if decoupled else x
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        x = x - 0.02 * (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-3)
    assert torch.allclose(params, x, rtol=1e-12)


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0}])
def test_adams_bounds(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"needs .*{name}"):
        adam(torch.zeros(3), **wrong)


@pytest.mark.slow
def test_any_optimizer_of_torch_goes_on_after_a_resume(run, cli, tmp_path):
    other = (
        "optimizer=other", "optimizer._target_=torch.optim.RMSprop", "+optimizer.alpha=0.9",
        "optimizer.schedule=cosine", "optimizer.horizon=8",
    )  # fmt: skip
    whole = run(*other, "steps=4", folder=tmp_path / "whole")
    run(*other, "steps=2", folder=tmp_path / "parts")
    parts = run(*other, "steps=4", folder=tmp_path / "parts")
    assert parts["parameters_sha256"] == whole["parameters_sha256"]
    adam_too = run("optimizer=adam", "steps=4", folder=tmp_path / "adam")
    assert adam_too["parameters_sha256"] != whole["parameters_sha256"]
    wrongs = {
        "optimizer._target_=torch.optim.RMSprp": "cannot be imported",
        "+optimizer.alhpa=0.9": "did you mean 'alpha'",
        "optimizer.decay=0.5": "is of schedule=step, got schedule=cosine",
        "+optimizer.eps=small": "optimizer.eps='small' must be",
    }
    for wrong, said in wrongs.items():
        code, _, err = cli(*other, wrong, "plan=true", f"output_dir={tmp_path}")
        assert code == 2, err
        assert said in err
