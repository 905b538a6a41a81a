import inspect
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from running import metrics_of, run_program, summary_of
from torch import nn

from byzshield_exp import networks
from byzshield_exp.datasets import digits
from byzshield_exp.networks import flatten, lenet, mlp, resnet18

CONF = Path(__file__).parents[2] / "conf" / "network"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
NORMALISED = [
    name for name in NAMES if "norm" in inspect.signature(getattr(networks, name)).parameters
]
# What makes a large network quick to try; all others with a width get one of 4.
THIN = {
    "densenet121": {"growth": 4},
    "vit": {"dim": 16, "depth": 2, "heads": 2},
    "wrn": {"depth": 10, "width": 1},
}
STEADY = {"norm": "group", "dropout": 0.0}  # each sample by itself; others have tests of their own
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)

thin_resnet18 = partial(resnet18, norm="group", width=4)


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


def thin(name):
    """The function of a choice with its YAML file's arguments, but thin and deterministic."""
    choice = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert choice.pop("_target_") == f"byzshield_exp.networks.{name}"
    narrow = {"width": 4} if "width" in choice else {}
    steady = {key: value for key, value in STEADY.items() if key in choice}
    return partial(getattr(networks, name), **choice | steady | THIN.get(name, narrow))


@pytest.mark.parametrize(
    ("name", "num_classes", "count", "arguments"),
    [
        # the ByzShield and DETOX codes'
        ("resnet18", 10, 11_173_962, {}),
        ("resnet34", 10, 21_282_122, {}),
        ("resnet50", 10, 23_520_842, {}),
        ("resnet101", 10, 42_512_970, {}),
        ("resnet152", 10, 58_156_618, {}),
        ("densenet121", 10, 6_956_298, {}),
        ("vgg11", 100, 9_277_284, {}),
        ("vgg13", 100, 9_462_180, {}),
        ("vgg16", 100, 14_774_436, {}),
        ("vgg19", 100, 20_086_692, {}),
        ("vgg11", 10, 9_231_114, {}),
        ("vgg19", 10, 20_040_522, {}),
        # He et al., Table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million
        ("resnet20", 10, 269_722, {}),
        ("resnet32", 10, 464_154, {}),
        ("resnet44", 10, 658_586, {}),
        ("resnet56", 10, 853_018, {}),
        ("resnet110", 10, 1_727_962, {}),
        # Zagoruyko and Komodakis: 36.5, 8.9 (WRN-40-4) and 11.0 million (WRN-16-8)
        ("wrn", 10, 36_479_194, {}),
        ("wrn", 100, 36_536_884, {}),
        ("wrn", 10, 8_949_210, {"depth": 40, "width": 4}),
        ("wrn", 10, 10_961_370, {"depth": 16, "width": 8}),
    ],
)
def test_normalised_networks_have_the_published_sizes(name, num_classes, count, arguments):
    make = getattr(networks, name)
    with torch.device("meta"):
        for norm in ("batch", "group"):
            assert size(make(CIFAR, num_classes, norm=norm, **arguments)) == count
        bare = make(CIFAR, num_classes, norm="none", **arguments)
        biases = sum(p.numel() for p in bare.parameters() if p.dim() == 1) - num_classes
        per_channel = 3 if name.startswith("vgg") else 2  # VGG's convolutions have their own too
        assert count - size(bare) == (per_channel - 1) * biases


@pytest.mark.parametrize(
    ("name", "shape", "count", "arguments"),
    [
        ("lenet", MNIST, 431_080, {}),
        ("lenet", MNIST, 431_080, {"hidden_relu": False}),
        ("mlp", MNIST, 101_770, {}),
        ("fc", MNIST, 1_033_510, {}),
        ("fc", MNIST, 1_033_510, {"sigmoid": True}),
        ("l46_net", MNIST, 21_840, {}),
        ("alexnet", CIFAR, 2_472_266, {}),
        # 65 tokens; 12 d^2 + 13 d per layer of d = 128
        ("vit", CIFAR, 66 * 128 + 49 * 128 + 6 * (12 * 128**2 + 13 * 128) + 256 + 1290, {}),
    ],
)
def test_other_networks_have_the_published_sizes(name, shape, count, arguments):
    with torch.device("meta"):
        assert size(getattr(networks, name)(shape, 10, **arguments)) == count


def test_a_large_vit_is_the_papers():
    """ViT-B/16 as torchvision counts it."""
    with torch.device("meta"):
        large = networks.vit((3, 224, 224), 1000, patch=16, dim=768, depth=12, heads=12)
    assert size(large) == 86_567_656


@pytest.mark.parametrize("per_stage", [3, 5, 7, 9, 18])
def test_cifar_resnets_count_as_in_section_4_2(per_stage):
    """6n + 2 layers: only convolutions, two numbers a channel, and one linear layer count."""
    make = getattr(networks, f"resnet{6 * per_stage + 2}")
    inner = 2 * per_stage * 9 * (16**2 + 32**2 + 64**2)
    first = 9 * (3 * 16 - 16 * 32 - 32 * 64)  # half as many inputs where a stage begins
    norms = 2 * (16 + 2 * per_stage * (16 + 32 + 64))
    with torch.device("meta"):
        assert size(make(CIFAR, 10)) == inner + first + norms + 64 * 10 + 10


def forward_and_gradient(network, pictures, labels):
    logits = network(pictures)
    loss = nn.functional.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    return logits.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def refusal(name, shape):
    """What a network says of pictures that are too small for it, or None."""
    try:
        thin(name)(shape, 7)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("shape", [MNIST, CIFAR], ids=["mnist", "cifar"])
@pytest.mark.parametrize("name", NAMES)
def test_every_choice_makes_finite_logits_and_gradients(name, shape):
    if shape == MNIST and name.startswith(("alexnet", "vgg")):
        smallest = 29 if name == "alexnet" else 32
        size_said = f"{smallest} x {smallest}, got 28 x 28"
        assert refusal(name, shape) == f"{name} needs pictures of at least {size_said}"
        return
    torch.manual_seed(0)
    network = thin(name)(shape, 7)
    pictures, labels = torch.randn(3, *shape), torch.tensor([0, 6, 3])
    for mode in (True, False):
        logits, gradient = forward_and_gradient(network.train(mode), pictures, labels)
        assert logits.shape == (3, 7)
        assert bool(logits.isfinite().all())
        assert bool(gradient.isfinite().all())
        assert gradient.count_nonzero() > 0.3 * len(gradient)
        with torch.no_grad():
            torch.testing.assert_close(network(pictures), logits, rtol=1e-4, atol=1e-5)
    assert not list(network.buffers())


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_works_or_names_its_smallest_picture(name):
    smallest = 1
    if said := refusal(name, (2, 1, 1)):
        pattern = rf"{name} needs (square )?pictures of at least (\d+) x \2,.* got (\d+) x \3"
        found = re.fullmatch(pattern, said)
        assert found, said
        smallest = int(found[2])
        below = smallest - 1
        assert found[3] == "1"
        assert refusal(name, (2, below, below)) == said.replace("1 x 1", f"{below} x {below}")
    network = thin(name)((2, smallest, smallest), 7)
    assert network(torch.randn(2, 2, smallest, smallest)).shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_follows_the_seed(name):
    def vector(seed):
        torch.manual_seed(seed)
        return flatten(thin(name)(CIFAR, 10)).params

    assert torch.equal(vector(1), vector(1))
    assert not torch.equal(vector(1), vector(2))


@pytest.mark.parametrize("norm", ["group", "none", "batch"])
@pytest.mark.parametrize("name", NORMALISED)
def test_only_batch_normalisation_has_buffers_and_mixes_samples(name, norm):
    torch.manual_seed(0)
    network = thin(name)(CIFAR, 10, norm=norm)
    pictures = torch.randn(3, *CIFAR)
    others = torch.cat([pictures[:1], torch.randn(2, *CIFAR)])
    with torch.no_grad():
        alone = torch.allclose(network(pictures)[0], network(others)[0], rtol=1e-4, atol=1e-6)
    assert alone == (norm != "batch")
    assert bool(list(network.buffers())) == (norm == "batch")


@pytest.mark.parametrize("name", NORMALISED)
def test_without_normalisation_depth_neither_explodes_nor_silences(name):
    torch.manual_seed(0)
    network = thin(name)(CIFAR, 10, norm="none")
    logits, gradient = forward_and_gradient(network, torch.randn(4, *CIFAR), torch.arange(4))
    assert 1e-3 < logits.std() < 10
    assert 0.1 < gradient.norm() < 100


@pytest.mark.slow
def test_without_normalisation_a_resnet_learns_the_digits():
    data = digits()
    torch.manual_seed(0)
    network = networks.resnet20(data.shape, 10, norm="none")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for samples in torch.randint(len(data.train_labels), (100, 32)):
        logits = network(data.train_images[samples])
        loss = nn.functional.cross_entropy(logits, data.train_labels[samples])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2
    assert sum(losses[-10:]) / 10 < 1


def test_the_sigmoid_of_the_papers_fc_is_an_option():
    pictures = 100 * torch.randn(4, *MNIST)
    torch.manual_seed(0)
    plain = networks.fc(MNIST, 10)
    torch.manual_seed(0)
    squashed = networks.fc(MNIST, 10, sigmoid=True)
    assert plain(pictures).min() < 0
    torch.testing.assert_close(squashed(pictures), plain(pictures).sigmoid())


def test_shortcuts_of_cifar_resnets_are_the_identity_padded():
    """With the branches at zero, what comes out is what the stem gave, twice halved."""
    network = networks.resnet20(CIFAR, 10, norm="none")
    for block in network[3:12]:
        nn.init.zeros_(block.conv2.weight)
    pictures = torch.rand(2, *CIFAR)
    stem = network[:3](pictures)
    expected = torch.zeros(2, 64, 8, 8)
    expected[:, :16] = stem[:, :, ::4, ::4]
    assert torch.equal(network[:12](pictures), expected)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("network.norm=layer", "must be one of batch, group, none"),
        ("network.width=0", "width must be positive, got width=0"),
    ],
)
def test_what_a_run_cannot_do_is_one_line(cli, override, said):
    code, _, err = cli("network=resnet20", override, "plan=true")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert said in err


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
    with pytest.raises(ValueError, match="depth=29"):
        networks.wrn(CIFAR, 10, depth=29)
    with pytest.raises(ValueError, match="growth=0"):
        networks.densenet121(CIFAR, 10, growth=0)
    with pytest.raises(ValueError, match="heads=3 dim=128"):
        networks.vit(CIFAR, 10, heads=3)
    with pytest.raises(ValueError, match="patch=5, got 32 x 32"):
        networks.vit(CIFAR, 10, patch=5)
    with pytest.raises(ValueError, match="got 32 x 28"):
        networks.vit((3, 32, 28), 10)
    with pytest.raises(ValueError, match="depth=0"):
        networks.vit(CIFAR, 10, depth=0)
    with pytest.raises(ValueError, match=r"dropout=1\.5"):
        networks.l46_net(MNIST, 10, dropout=1.5)


@pytest.mark.thorough
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
    flat = flatten(network).params
    lying = [p.permute(0, 2, 3, 1) if p.dim() == 4 else p for p in before]
    assert torch.equal(flat, torch.cat([parameter.flatten() for parameter in lying]))
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    flat.zero_()
    assert all(bool((parameter == 0).all()) for parameter in network.parameters())
    assert size(network) == len(flat)
    assert bool((network(torch.ones(2, 1, 8, 8)) == 0).all())
