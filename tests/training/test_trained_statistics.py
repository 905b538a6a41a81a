"""Statistics that the server has made are as good as some that are counted over the data."""

import copy

import numpy as np
import pytest
import torch
from own_network import NETWORK
from torch import nn

from byzshield_exp.datasets import digits
from byzshield_exp.networks import flatten, running_statistics
from byzshield_exp.results import checkpoint
from byzshield_exp.training import aggregation
from byzshield_exp.training.accuracy import evaluate


def recomputed(made, data):
    """A copy with statistics that are counted anew over the training data."""
    other = copy.deepcopy(made).train()
    for module in other.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
            module.momentum = None  # the mean over batches
    with torch.no_grad():
        for samples in torch.arange(1400).split(100):
            other(data.train_batch(samples, np.random.default_rng(0))[0])
    return other


TRAINED = (*NETWORK, "steps=50", "eval_every=50", "optimizer.lr=0.1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(("attack=none",), id="none"),
        pytest.param(
            ("attack=reversed_gradient", "poison_statistics=true"), id="poisoned statistics"
        ),
    ],
)
def test_evaluation_is_as_good_as_with_statistics_of_the_training_data(
    network, run, tmp_path, attack
):
    summary = run(*TRAINED, *attack, small=False, folder=tmp_path / "out")
    accuracy, again = summary["final_test_accuracy"], trained(network, tmp_path)
    assert accuracy > 0.9
    assert abs(accuracy - again) <= 0.01


def trained(network, tmp_path):
    """Accuracy with statistics that are counted anew over the training data."""
    return evaluate(recomputed_network(network, tmp_path)[1], digits().chunks("test")).accuracy


def recomputed_network(network, tmp_path):
    """The trained network as it was saved, and with statistics counted anew."""
    (path, *_) = sorted(tmp_path.glob("out/*/checkpoints/*.pt"), reverse=True)
    saved, data = checkpoint.load(path), digits()
    made = network(data.shape, 10)
    flat = flatten(made)
    flat.params.copy_(saved["params"])
    flat.statistics.copy_(saved["statistics"])
    return made, recomputed(made, data)


@pytest.mark.slow
def test_variances_of_small_files_are_not_biased(network, run, tmp_path):
    """Of two samples the median variance is half of the mean one."""
    options = (*TRAINED, "steps=80", "attack=none", "q=0", "batch_size=50")
    run(*options, small=False, folder=tmp_path / "out")
    saved, other = recomputed_network(network, tmp_path)
    ratios = [
        float((module.running_var / getattr(again, name)).median())
        for (module, name), (again, _) in zip(
            running_statistics(saved), running_statistics(other), strict=True
        )
        if name == "running_var"
    ]
    assert all(0.9 < ratio < 1.1 for ratio in ratios)


@pytest.mark.slow
def test_without_trimming_poisoned_statistics_would_not_be_filtered(
    network, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(aggregation, "trimmed_mean", lambda rows, trimmed: rows.mean(dim=0))
    options = (*TRAINED, "attack=reversed_gradient", "poison_statistics=true")
    summary = run(*options, small=False, folder=tmp_path / "out")
    assert summary["final_test_accuracy"] < 0.5  # with trimming it is above 0.9
