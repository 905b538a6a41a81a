"""Networks that a run bears although they are odd, and some that it refuses in a line."""

import pytest
from own_network import SMALL

from byzshield_exp.training.experiment import build

MORE = """
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

def spectral(shape, num_classes: int):
    rest = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), parametrizations.spectral_norm(nn.Linear(rest, num_classes)))

def weighted(shape, num_classes: int):
    rest = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(rest, num_classes)))

def judging(shape, num_classes: int):
    rest = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(rest, num_classes)).eval()

class Holding(nn.Module):
    def __init__(self, rest, num_classes, norm):
        super().__init__()
        self.linear, self.norm = nn.Linear(rest, num_classes), norm

    def forward(self, x):
        self.last = self.norm(self.linear(x.flatten(1)))
        return self.last

def holding(shape, num_classes: int):
    return Holding(shape[0] * shape[1] * shape[2], num_classes, nn.BatchNorm1d(num_classes))

def locked(shape, num_classes: int):
    import threading
    made = Holding(shape[0] * shape[1] * shape[2], num_classes, nn.Identity())
    made.lock = threading.Lock()
    return made

def unused(shape, num_classes: int):
    made = Holding(shape[0] * shape[1] * shape[2], num_classes, nn.Identity())
    made.other = nn.Linear(3, 3)
    return made

def stateless(shape, num_classes: int):
    rest = shape[0] * shape[1] * shape[2]
    norm = nn.BatchNorm1d(num_classes, momentum=None, track_running_stats=False)
    return nn.Sequential(nn.Flatten(), nn.Linear(rest, num_classes), norm)
"""


@pytest.fixture
def more(tmp_path, monkeypatch):
    (tmp_path / "more_networks.py").write_text(MORE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def options(name):
        return (f"network._target_=more_networks.{name}", *SMALL[1:])

    return options


def test_buffers_that_stay_with_a_worker_are_refused(more, cli, tmp_path):
    """Spectral norm's vectors would depend on the files that a worker has seen."""
    code, _, err = cli(*more("spectral"), f"output_dir={tmp_path}")
    assert code == 2
    assert err.startswith(
        "byzshield_exp: network=more_networks.spectral changes its buffer 1.parametrizations."
    )
    assert len(err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", ["weighted", "stateless", "locked"])
def test_networks_that_cannot_be_copied_or_keep_nothing_learn(more, run, tmp_path, name):
    summary = run(*more(name), "steps=30", small=False, folder=tmp_path / "out")
    assert summary["final_test_accuracy"] > 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [("holding", "deepcopy protocol"), ("unused", "appears to not have been used")],
)
def test_networks_that_would_fail_at_the_first_step_are_refused(more, cli, tmp_path, name, said):
    code, _, err = cli(*more(name), f"output_dir={tmp_path}")
    assert code == 2
    assert err.startswith(
        f"byzshield_exp: network=more_networks.{name} on 2 pictures of 1x8x8 (files"
    )
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_network_learns_in_training_mode(more, plain_config):
    experiment = build(plain_config(*more("judging"), small=False))
    assert experiment.is_stochastic
    assert experiment.network.training


BAD = {
    "momentum": (["+network.momentum=null"], "running statistics with momentum=None"),
    "one picture": (["batch_size=25"], "on 1 pictures of 1x8x8 (files of 1): "),  # torch says why
    "shapes": (["+network.bad=3"], "on 2 pictures of 1x8x8 (files of 12): "),
}


@pytest.mark.parametrize(("overrides", "message"), BAD.values(), ids=BAD)
def test_networks_that_cannot_learn_here_are_refused(network, cli, tmp_path, overrides, message):
    code, _, err = cli(*SMALL, *overrides, f"output_dir={tmp_path / 'out'}")
    assert code == 2
    assert err.startswith("byzshield_exp: network=users_network.network")
    assert message in err
    assert len(err.splitlines()) == 1
