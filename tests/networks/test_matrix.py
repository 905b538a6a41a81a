"""Every network on every data set's shape: two steps, and an evaluation of the checkpoint."""

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

from byzshield_exp.commands.evaluate import main as evaluate

# A small form of each network that has one.
THIN = {
    "densenet121": ("network.growth=4",),
    "fc": (),
    "lenet": (),
    "l46_net": (),
    "mlp": (),
    "alexnet": (),
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
# Pictures are 28 x 28 there, or 8 x 8.
SMALL = {"mnist": 28, "fashion_mnist": 28, "npz": 8, "digits": 8, "synthetic": 8}
SMALLEST = {"alexnet": 29, "l46_net": 16, **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), 32)}


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


@pytest.mark.slow
@pytest.mark.parametrize("data", WRITE)
@pytest.mark.parametrize("network", NAMES)
def test_every_network_trains_and_evaluates_on_every_shape(
    network, data, roots, cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "cache"))
    code, _, err = cli(*overrides(network, data, roots[data]), f"output_dir={tmp_path}/outputs")
    if SMALL.get(data, 32) < SMALLEST.get(network, 1):
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
