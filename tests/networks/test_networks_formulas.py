"""Architectures against torchvision's layers, or against a short forward pass written again."""

import pytest
import torch
from torch import nn
from torch.nn.functional import (
    avg_pool2d,
    batch_norm,
    conv2d,
    dropout,
    dropout2d,
    linear,
    max_pool2d,
    pad,
)
from torchvision.models import resnet, vgg

from byzshield_exp import networks

MNIST, CIFAR, SMALL = (1, 28, 28), (3, 32, 32), (3, 16, 16)


class Taken:
    """The parameters of a network, in the order in which a formula uses them."""

    def __init__(self, network):
        self._left = iter(network.parameters())

    def conv(self, x, stride=1, padding=1, bias=False):
        weight = next(self._left)
        return conv2d(x, weight, next(self._left) if bias else None, stride, padding)

    def linear(self, x):
        return linear(x.flatten(1), next(self._left), next(self._left))

    def norm(self, x):
        return batch_norm(x, None, None, next(self._left), next(self._left), training=True)

    def all_used(self):
        return not list(self._left)


def shaken(network):
    """Weights of which no two layers and no two channels have the same."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def pictures_of(shape):
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))


def assert_is(network, shape, formula):
    """``formula(taken, pictures)`` with the network's own parameters gives its logits."""
    taken, pictures = Taken(shaken(network)), pictures_of(shape)
    with torch.no_grad():
        torch.manual_seed(2)
        found = network(pictures)
        torch.manual_seed(2)
        expected = formula(taken, pictures)
    assert taken.all_used()
    assert found.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(found.abs().max()))


def assert_same(network, theirs, shape):
    """With the same parameters, in the same order, two networks give the same logits."""
    shaken(network)
    for mine, other in zip(network.parameters(), theirs.parameters(), strict=True):
        assert mine.shape == other.shape
        other.data.copy_(mine.data)
    with torch.no_grad():
        assert torch.equal(network(pictures_of(shape)), theirs(pictures_of(shape)))


@pytest.mark.parametrize(
    ("name", "block", "counts"),
    [
        ("resnet18", resnet.BasicBlock, [2, 2, 2, 2]),
        ("resnet34", resnet.BasicBlock, [3, 4, 6, 3]),
        ("resnet50", resnet.Bottleneck, [3, 4, 6, 3]),
        ("resnet101", resnet.Bottleneck, [3, 4, 23, 3]),
        ("resnet152", resnet.Bottleneck, [3, 8, 36, 3]),
    ],
)
def test_resnets_are_torchvisions_with_another_stem(name, block, counts):
    builder = resnet.ResNet(block, [1, 1, 1, 1], num_classes=1)
    builder.inplanes = 4
    stages = [
        builder._make_layer(block, 4 << stage, count, stride=2 if stage else 1)
        for stage, count in enumerate(counts)
    ]
    theirs = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), *stages,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32 * block.expansion, 10),
    )  # fmt: skip
    assert_same(getattr(networks, name)(SMALL, 10, width=4), theirs, SMALL)


@pytest.mark.parametrize(
    ("name", "letter"), [("vgg11", "A"), ("vgg13", "B"), ("vgg16", "D"), ("vgg19", "E")]
)
def test_vggs_are_torchvisions_features_and_one_layer(name, letter):
    thin = [one if one == "M" else one // 16 for one in vgg.cfgs[letter]]
    theirs = nn.Sequential(
        vgg.make_layers(thin, batch_norm=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)
    )
    shape = (3, 64, 64)
    assert_same(getattr(networks, name)(shape, 10, width=4), theirs, shape)


@pytest.mark.parametrize("per_stage", [3, 5])
def test_cifar_resnets_are_the_papers(per_stage):
    """He et al., section 4.2, with shortcuts of option A."""

    def formula(taken, x):
        x = taken.norm(taken.conv(x)).relu()
        for number in range(3 * per_stage):
            stride = 2 if number in (per_stage, 2 * per_stage) else 1
            branch = taken.norm(taken.conv(x, stride)).relu()
            branch = taken.norm(taken.conv(branch))
            if stride == 2:
                x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))
            x = (x + branch).relu()
        return taken.linear(x.mean(dim=(2, 3)))

    network = getattr(networks, f"resnet{6 * per_stage + 2}")(SMALL, 10, width=4)
    assert_is(network, SMALL, formula)


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_wrn_is_the_papers(depth, width):
    """Zagoruyko and Komodakis, Table 1: normalisation and ReLU first, also of shortcuts."""

    def formula(taken, x):
        x = taken.conv(x)
        for stage in range(3):
            for number in range((depth - 4) // 6):
                stride = 2 if stage and not number else 1
                active = taken.norm(x).relu()
                branch = taken.conv(taken.norm(taken.conv(active, stride)).relu())
                changes = stride == 2 or x.shape[1] != branch.shape[1]
                x = branch + (taken.conv(active, stride, padding=0) if changes else x)
        return taken.linear(taken.norm(x).relu().mean(dim=(2, 3)))

    assert_is(networks.wrn(SMALL, 10, depth=depth, width=width), SMALL, formula)


def test_densenet121_is_the_papers():
    """Huang et al., Table 1, after a plain 3 x 3 convolution."""

    def formula(taken, x):
        x = taken.conv(x)
        for stage, layers in enumerate((6, 12, 24, 16)):
            if stage:
                x = avg_pool2d(taken.conv(taken.norm(x).relu(), padding=0), 2)
            for _ in range(layers):
                inner = taken.conv(taken.norm(x).relu(), padding=0)
                x = torch.cat([x, taken.conv(taken.norm(inner).relu())], dim=1)
        return taken.linear(taken.norm(x).relu().mean(dim=(2, 3)))

    assert_is(networks.densenet121(SMALL, 10, growth=4), SMALL, formula)


def test_alexnet():
    def formula(taken, x):
        x = max_pool2d(taken.conv(x, stride=4, padding=5, bias=True).relu(), 2)
        x = max_pool2d(taken.conv(x, padding=2, bias=True).relu(), 2)
        for _ in range(3):
            x = taken.conv(x, bias=True).relu()
        return taken.linear(max_pool2d(x, 2).mean(dim=(2, 3)))

    for shape in (CIFAR, (3, 64, 64)):
        assert_is(networks.alexnet(shape, 10), shape, formula)


@pytest.mark.parametrize("hidden_relu", [True, False])
@pytest.mark.parametrize(("shape", "padding"), [(MNIST, 0), (SMALL, 2)])
def test_lenet(shape, padding, hidden_relu):
    def formula(taken, x):
        for _ in range(2):
            x = max_pool2d(taken.conv(x, padding=padding, bias=True), 2).relu()
        hidden = taken.linear(x)
        return taken.linear(hidden.relu() if hidden_relu else hidden)

    assert_is(networks.lenet(shape, 10, hidden_relu=hidden_relu), shape, formula)


@pytest.mark.parametrize("drop", [0.5, 0.2, 0.0])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_l46_net(drop, mode):
    """Whole channels are dropped after the second convolution, units after the hidden layer."""

    def formula(taken, x):
        x = max_pool2d(taken.conv(x, padding=0, bias=True), 2).relu()
        x = dropout2d(taken.conv(x, padding=0, bias=True), drop, mode)
        hidden = taken.linear(max_pool2d(x, 2).relu()).relu()
        return taken.linear(dropout(hidden, drop, mode))

    assert_is(networks.l46_net(MNIST, 10, dropout=drop).train(mode), MNIST, formula)


def test_perceptrons():
    def formula(taken, x):
        return taken.linear(taken.linear(taken.linear(x).relu()).relu())

    assert_is(networks.mlp(MNIST, 10, hidden=[9, 7]), MNIST, formula)
    assert_is(networks.fc(MNIST, 10), MNIST, formula)
    assert_is(networks.fc(MNIST, 10, sigmoid=True), MNIST, lambda *given: formula(*given).sigmoid())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_vit_starts_its_patches_as_torchvision(channels):
    """Normal with a variance of one over the numbers of a patch, and no bias."""
    torch.manual_seed(0)
    weight, bias = networks.vit((channels, 32, 32), 10).conv_proj.parameters()
    assert weight.shape == (128, channels, 4, 4)
    standard = weight.detach() * (16 * channels) ** 0.5
    assert float(standard.std()) == pytest.approx(1, abs=0.05)
    assert float(standard.abs().max()) > 3  # of a uniform one it would be 1.7
    assert not bias.any()


def test_a_vit_is_torchvisions_without_dropout():
    from torchvision.models import VisionTransformer

    theirs = VisionTransformer(32, 8, 2, 4, 16, mlp_dim=64, num_classes=10)
    assert_same(networks.vit(CIFAR, 10, patch=8, dim=16, depth=2, heads=4), theirs, CIFAR)
