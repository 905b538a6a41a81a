"""A network of every family on every shape of pictures: two steps, and an evaluation."""

import json

import pytest
from picture_files import (
    accept,
    write_cifar10,
    write_cifar100,
    write_folder,
    write_mnist,
    write_npz,
    write_svhn,
)
from running import metrics_of
from test_networks import NAMES

from byzshield_exp import networks
from byzshield_exp.commands.evaluate import main as evaluate

# By the file that it is in, the smallest network: others of a file differ in their depth alone, and
# test_networks.py and test_choices.py have them all.
FAMILIES = {
    getattr(networks, name).__module__: name
    for name in sorted(NAMES, key=lambda name: (len(name), name), reverse=True)
}.values()
# A small form of each network that has one.
THIN = {
    "densenet121": ("network.growth=4",),
    **dict.fromkeys(("alexnet", "fc", "l46_net", "lenet"), ()),
    "vit": ("network.dim=16", "network.depth=2", "network.heads=2"),
    "wrn": ("network.depth=10", "network.width=1"),
}
WRITE = {
    "mnist": lambda root: write_mnist(root / "MNIST" / "raw"),
    "fashion_mnist": lambda root: write_mnist(root / "FashionMNIST" / "raw"),
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "image_folder": lambda root: write_folder(root, side=32),
    "npz": lambda root: write_npz(root / "data.npz"),
    "digits": lambda root: None,
    "synthetic": lambda root: None,
}
# The side of the pictures where it is not 32. Of data sets with equal pictures one is for all.
SIDE = {"mnist": 28, "fashion_mnist": 28, "npz": 8, "digits": 8, "synthetic": 8}
SHAPES = ("mnist", "cifar10", "npz", "digits")
SMALLEST = {"alexnet": 29, "l46_net": 16, "vgg11": 32}
PAIRS = [
    pytest.param(
        network,
        data,
        marks=pytest.mark.slow if data in ("mnist", "cifar10") else pytest.mark.thorough,
    )
    for network in FAMILIES
    for data in SHAPES
] + [pytest.param("lenet", data, marks=pytest.mark.slow) for data in WRITE if data not in SHAPES]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A folder with small official files of each data set."""
    made = {name: tmp_path_factory.mktemp(name) for name in WRITE}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, root in made.items():
            WRITE[name](root)
            if name in ("cifar10", "cifar100", "svhn"):
                accept(monkeypatch, root)
        yield made


def overrides(network, data, root):
    where = [] if data in ("digits", "synthetic") else [f"dataset.root={root}"]
    return (
        f"network={network}",
        *THIN.get(network, ("network.width=4",)),
        f"dataset={data}",
        *where,
        *(["dataset.file=data.npz"] if data == "npz" else []),
        "K=3", "r=3", "q=1", "approach=detox", "batch_size=4", "steps=2",
    )  # fmt: skip


@pytest.mark.parametrize(("network", "data"), PAIRS)
def test_every_family_trains_and_evaluates_on_every_shape(
    network, data, roots, cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "cache"))
    code, _, err = cli(*overrides(network, data, roots[data]), f"output_dir={tmp_path}/outputs")
    if SIDE.get(data, 32) < SMALLEST.get(network, 1):
        assert code == 2
        assert f"network: {network} needs pictures of at least" in err
        assert err.count("\n") == 1
        return
    assert code == 0, err
    (summary,) = (
        json.loads(path.read_text()) for path in (tmp_path / "outputs").glob("*/summary.json")
    )
    assert summary["steps"] == 2
    assert all(0 < record["loss"] < 100 for record in metrics_of(tmp_path / "outputs"))
    (folder,) = (tmp_path / "outputs").iterdir()
    evaluate([f"run={folder}"])
    (line,) = (folder / "evaluations.jsonl").read_text().splitlines()[-1:]
    assert json.loads(line)["step"] == 2
    assert json.loads(line)["test_accuracy"] == summary["final_test_accuracy"]


def test_the_list_of_data_sets_is_whole():
    from byzshield_exp.commands.choices import choices

    assert {choice.name for choice in choices("dataset")} == set(WRITE)
