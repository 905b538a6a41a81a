"""Every YAML file of conf/ trains two steps; every public function is documented."""

import ast
import inspect
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from goldens.runs import RUNS
from picture_files import (
    accept,
    write_cifar10,
    write_cifar100,
    write_folder,
    write_mnist,
    write_npz,
    write_svhn,
)

CONF = Path(__file__).parents[2] / "conf"
ELSEWHERE = ("scale", "cheat")  # chosen in test_experiments.py and test_cheats.py
CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ELSEWHERE
)
TINY = ("steps=2", "eval_every=2", "q=2")
RESNETS = (18, 20, 32, 34, 44, 50, 56, 101, 110, 152)
NEEDS = {
    ("approach", "ramanujan_two"): ("K=9",),
    ("approach", "affine_plane"): ("K=9",),
    ("approach", "projective_plane"): ("K=7",),
    ("approach", "subsets"): ("K=7",),
    ("approach", "custom"): ("K=4", "approach.path={custom}", "q=1"),
    ("adversary", "explicit"): ("adversary.workers=[3,4]",),
    ("adversary", "one_per_group"): ("approach=maj_vote",),
    ("adversary", "whole_group"): ("approach=detox",),
    ("cluster", "processes"): ("cluster.num_processes=2",),
    ("protocol", "btard"): ("approach=btard", "batch_size=30"),
    ("experiment", "mnist_lenet"): ("dataset.root={data}",),
    ("experiment", "demo"): ("seed=0", "hydra.sweeper.only=[median]"),
    ("optimizer", "other"): ("optimizer._target_=torch.optim.RMSprop",),
    ("dataset", "npz"): ("dataset.root={data}", "dataset.file=mine.npz"),
    **{
        ("dataset", name): ("dataset.root={data}",)
        for name in ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "image_folder")
    },
    ("network", "alexnet"): ("dataset.size=29",),
    ("network", "densenet121"): ("network.growth=4", "dataset.size=16"),
    ("network", "l46_net"): ("dataset.size=16",),
    ("network", "vit"): ("network.dim=16",),
    ("network", "wrn"): ("network.depth=10", "network.width=1"),
    **{("network", f"resnet{n}"): ("network.width=4", "dataset.size=16") for n in RESNETS},
    **{("network", f"vgg{n}"): ("network.width=4", "dataset.size=32") for n in (11, 13, 16, 19)},
}


# Most choices train among the goldens; those that do not, train here. Large networks are slow.
GOLDEN = {given for line in RUNS.values() for given in line.split()}
QUICK = {"median", "krum", "centered_clip", "dnc", "alie", "label_flip", "majorities_only", "none",
         "lenet", "mlp", "resnet20", "vgg11", "vit"}  # fmt: skip


def is_here(group, choice):
    return f"{group}={choice}" not in GOLDEN or choice in QUICK


def marked(group, choice):
    marks = [pytest.mark.slow] if group == "network" and choice not in QUICK else []
    return pytest.param(group, choice, id=f"{group}={choice}", marks=marks)


def write_all(root):
    """The files of all data sets."""
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(root / name / "raw")
    for write in (write_cifar10, write_cifar100, write_svhn, write_folder):
        write(root)
    write_npz(root / "mine.npz")


@pytest.mark.slow
@pytest.mark.parametrize(("group", "choice"), [marked(*pair) for pair in CHOICES if is_here(*pair)])
def test_every_choice_trains(cli, tmp_path, monkeypatch, group, choice):
    if group in ("dataset", "experiment"):
        monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "cache"))
        write_all(tmp_path / "data")
        accept(monkeypatch, tmp_path / "data")
    pairs = list(combinations(range(4), 2))  # four workers, a file for each pair
    np.save(tmp_path / "pairs.npy", [[worker in pair for pair in pairs] for worker in range(4)])
    base = () if group in ("dataset", "experiment") else ("dataset=synthetic",)
    base += () if group in ("network", "experiment") else ("network=mlp",)
    base += () if group in ("approach", "adversary") else ("batch_size=25",)
    more = [
        part.format(data=tmp_path / "data", custom=tmp_path / "pairs.npy")
        for part in NEEDS.get((group, choice), ())
    ]
    chosen = f"{group}={choice}"
    code, out, err = cli(*base, *TINY, chosen, *more, f"output_dir={tmp_path}/out")
    assert code == 0, err
    (metrics,) = tmp_path.glob("out/*/metrics.jsonl")
    records = metrics.read_text().splitlines()
    assert len(records) == 2
    assert re.search(r"test accuracy [01]\.\d{4} after 2 steps", out)


def public_functions():
    package = Path(__file__).parents[2] / "byzshield_exp"
    for path in sorted(package.rglob("*.py")):
        found = [*ast.parse(path.read_text()).body]
        while found:
            node = found.pop()
            is_ours = isinstance(node, ast.FunctionDef | ast.ClassDef)
            if is_ours and not node.name.startswith("_"):
                yield pytest.param(path, node, id=f"{path.stem}.{node.name}")
                found += node.body if isinstance(node, ast.ClassDef) else []


@pytest.mark.parametrize(("path", "node"), list(public_functions()))
def test_every_public_name_has_a_docstring_with_its_errors(path, node):
    text = ast.get_docstring(node)
    assert text, "no docstring"
    raised = {
        child.exc.func.id
        for child in ast.walk(node)
        if isinstance(child, ast.Raise)
        and isinstance(child.exc, ast.Call)
        and isinstance(child.exc.func, ast.Name)
        and child.exc.func.id[0].isupper()  # a class, no variable that holds one
    }
    if isinstance(node, ast.FunctionDef) and raised:
        assert "Raises:" in text
        assert any(name in text for name in raised)


@pytest.mark.parametrize("module", ["aggregators", "assignments", "attacks"])
def test_every_rule_names_its_source(module):
    import importlib

    package = importlib.import_module(f"byzshield_exp.{module}")
    own = {
        "check_attack", "check_forged",
        "baseline", "random", "custom", "squared_distances",
        "attack_traits", "check_arguments", "forged_files", "is_declared", "shares", "why_idle",
    }  # of no paper  # fmt: skip
    for name in package.__all__:
        function = getattr(package, name)
        if inspect.isfunction(function) and name not in own:
            assert "Source:" in (inspect.getdoc(function) + inspect.getmodule(function).__doc__), (
                name
            )
