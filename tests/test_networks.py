import subprocess
import sys
from functools import partial

import pytest
import torch
from conftest import metrics_of, run_program, summary_of
from torch import nn

from byzshield_exp.networks import flatten_parameters, lenet, mlp, resnet18

thin_resnet18 = partial(resnet18, width=4)


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_lenet_has_the_research_codes_size():
    assert size(lenet((1, 28, 28), 10)) == 431_080
    assert size(lenet((1, 28, 28), 10, hidden_relu=False)) == 431_080


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 9, 13), (1, 4, 4)])
@pytest.mark.parametrize("make", [lenet, mlp, thin_resnet18])
def test_networks_fit_the_pictures(make, shape):
    assert make(shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="3 x 8"):
        lenet((1, 3, 8), 10)
    with pytest.raises(ValueError, match="hidden"):
        mlp((1, 8, 8), 10, hidden=[0])
    with pytest.raises(ValueError, match="width=0"):
        resnet18((3, 32, 32), 10, width=0)
    with pytest.raises(ValueError, match="groups=0"):
        resnet18((3, 32, 32), 10, groups=0)


@pytest.fixture
def torchvisions_resnet18():
    """Theirs, with the stem that CIFAR repositories give it."""
    from torchvision.models.resnet import BasicBlock, ResNet

    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10, norm_layer=partial(nn.GroupNorm, 32))
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def test_resnet18_is_torchvisions_with_another_stem(torchvisions_resnet18):
    network = resnet18((3, 32, 32), 10)
    assert size(network) == 11_173_962
    mine, theirs = flatten_parameters(network), flatten_parameters(torchvisions_resnet18)
    theirs.copy_(mine)
    pictures = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(pictures), torchvisions_resnet18(pictures))


def test_resnet18_follows_the_seed():
    def vector(seed):
        torch.manual_seed(seed)
        return flatten_parameters(thin_resnet18((3, 32, 32), 10))

    assert torch.equal(vector(1), vector(1))
    assert not torch.equal(vector(1), vector(2))


def test_networks_do_not_load_torchvision():
    code = "import sys, byzshield_exp.networks; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_resnet18_trains_on_several_processes_as_in_one(tmp_path):
    overrides = (
        "dataset=synthetic", "dataset.channels=3", "dataset.size=32", "dataset.num_train=50",
        "dataset.num_test=20", "network=resnet18", "network.width=8", "batch_size=25", "steps=2",
    )  # fmt: skip
    digests = []
    for cluster in (["cluster=local"], ["cluster=processes", "cluster.num_processes=3"]):
        folder = tmp_path / str(len(cluster))
        done = run_program(*overrides, *cluster, f"output_dir={folder}")
        assert done.returncode == 0, done.stderr
        assert len(metrics_of(folder)) == 2
        assert 0 <= summary_of(folder)["final_test_accuracy"] <= 1
        digests.append(summary_of(folder)["parameters_sha256"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("make", [lenet, thin_resnet18])
def test_parameters_are_views_of_the_flat_vector(make):
    network = make((1, 8, 8), 10)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    flat = flatten_parameters(network)
    assert torch.equal(flat, torch.cat([parameter.flatten() for parameter in before]))
    flat.zero_()
    assert all(bool((parameter == 0).all()) for parameter in network.parameters())
    assert size(network) == len(flat)
    assert bool((network(torch.ones(2, 1, 8, 8)) == 0).all())
