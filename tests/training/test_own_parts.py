"""Parts of the user's own that fail: a line that names the place, the traceback in the log."""

import json
import os
import re
import subprocess
import sys

import pytest
from disturbing import torchrun
from running import modules_in, run_program

SMALL = ("dataset=synthetic", "network=mlp", "steps=4")
# Each function fails on the line that its name stands on as a comment.
BROKEN = """
import torch
from torch import nn

from byzshield_exp.aggregators import multi_krum
from byzshield_exp.datasets import synthetic

def rule(rows, num_corrupt):
    if rows.shape[1] > 2:  # not in the trial before the run
        return {}["lost"]  # rule
    return rows[0]

def tried_rule(rows, num_corrupt):
    return {}["lost"]  # tried_rule

def calling_rule(rows, num_corrupt):
    return multi_krum(rows, num_corrupt, m=99)  # calling_rule

def attack(knowledge):
    return {}["lost"]  # attack

def late_attack(knowledge):
    return {}["lost"] if knowledge.step == 2 else knowledge.own_rows()  # late_attack

def placement(num_workers, replication):
    return {}["lost"]  # placement

def refusing_placement(num_workers, replication):
    raise ValueError("K is odd")  # refusing_placement

def adversary(step):
    return {}["lost"]  # adversary

def vote(replicas):
    return {}["lost"]  # vote

def network(shape, num_classes):
    return {}["lost"]  # network

class Forward(nn.Linear):
    def __init__(self, shape, num_classes):
        super().__init__(8, num_classes)
    def forward(self, pictures):
        return {}["lost"]  # Forward.forward

def dataset():
    return {}["lost"]  # dataset

class Optimizer(torch.optim.SGD):
    def step(self):
        return {}["lost"]  # Optimizer.step

def returns(value=None, shape=None, type="float32", **given):
    return value if shape is None else torch.zeros(shape, dtype=getattr(torch, type))

def returning_rule(rows, num_corrupt, shape: list = [], type: str = "float32"):
    return returns(None, shape, type)

def late_rule(rows, num_corrupt):
    return rows[0] if rows.shape[1] == 2 else rows[0, 1:]

def returning_attack(knowledge, shape: list = [], type: str = "float32"):
    return returns(None, shape, type)

def returning_placement(num_workers, replication):
    return [[0, 1]]

def returning_adversary(step, workers: list):
    return workers

def returning_vote(replicas, shape: list = [], type: str = "int64"):
    return returns(None, shape, type)

def returning_network(shape, num_classes):
    return lambda pictures: pictures

class Pair(nn.Linear):
    def __init__(self, shape, num_classes):
        super().__init__(8, num_classes)
    def forward(self, pictures):
        return super().forward(pictures.flatten(1)[:, :8]), None

def returning_dataset(labels: int = 10):
    if labels == 0:
        return None
    made = synthetic()
    made.train_labels[3] = labels
    return made

def returning_optimizer(
    params, lr: float, schedule: str, decay: float, decay_every: int, horizon: int | None
):
    return torch.optim.SGD([params], lr=0.1)

def annotated(rows: "Missing", num_corrupt: int):
    return rows[0]
"""
LINES = {line.split("# ")[-1]: n for n, line in enumerate(BROKEN.splitlines(), 1) if "# " in line}
GROUPS = {
    "rule": "aggregator=mean aggregator",
    "attack": "attack=none +attack",
    "placement": "approach=mols approach",
    "adversary": "adversary=none adversary",
    "vote": "vote=majority vote",
    "network": "network=alexnet network",
    "dataset": "dataset=digits ~dataset.num_validation dataset",
    "optimizer": "optimizer=other optimizer",
}


def chosen(name, kind=""):
    kind = kind or name.rpartition("_")[2].lower()
    return [*f"{GROUPS[kind]}._target_=broken.{name}".split(), "q=3"]


RAISING = {
    name: ([*SMALL, *chosen(name, kind)], code, error, where or name)
    for name, kind, code, error, where in [
        ("rule", "", 1, "KeyError: 'lost'", ""),
        ("tried_rule", "", 1, "aggregator=broken.tried_rule raises KeyError: 'lost'", ""),
        ("calling_rule", "", 2, "got m=99 n=25 num_corrupt=3", ""),
        ("attack", "", 1, "KeyError: 'lost'", ""),
        ("late_attack", "", 1, "KeyError: 'lost'", ""),
        ("placement", "", 1, "KeyError: 'lost'", ""),
        ("refusing_placement", "", 2, "approach=refusing_placement: K is odd", ""),
        ("adversary", "", 1, "KeyError: 'lost'", ""),
        ("vote", "", 1, "KeyError: 'lost'", ""),
        ("network", "", 1, "KeyError: 'lost'", ""),
        ("Forward", "network", 1, "KeyError: 'lost'", "Forward.forward"),
        ("dataset", "", 1, "KeyError: 'lost'", ""),
        ("Optimizer", "", 1, "KeyError: 'lost'", "Optimizer.step"),
    ]
}
RETURNING = {
    "rule's shape": ("returning_rule", ["+aggregator.shape=[3]"], "must return a tensor [d=2] of"),
    "rule's type": (
        "returning_rule",
        ["+aggregator.shape=[2]", "+aggregator.type=float64"],
        "must return a tensor [d=2] of torch.float32, got [2] torch.float64",
    ),
    "rule's late shape": ("late_rule", [], "step 1: the aggregator must return a tensor [d="),
    "attack's shape": (
        "returning_attack",
        ["+attack.shape=[2,2]"],
        "step 1: the attack must return rows of shape [",
    ),
    "placement's type": (
        "returning_placement",
        [],
        "approach._target_='broken.returning_placement' must return Assignment, got list",
    ),
    "adversary's number": (
        "returning_adversary",
        ["+adversary.workers=[0,1,15]"],
        "must return a tuple of at most q=3 different workers from 0 to 14, got [0, 1, 15]",
    ),
    "adversary's count": (
        "returning_adversary",
        ["+adversary.workers=[0,1,2,3]"],
        "must return a tuple of at most q=3 different workers from 0 to 14, got [0, 1, 2, 3]",
    ),
    "vote's shape": (
        "returning_vote",
        ["+vote.shape=[3,25]"],
        "step 1: the vote must return labels [f=25, r=3] of torch.int64, got [3, 25] torch.int64",
    ),
    "vote's type": (
        "returning_vote",
        ["+vote.shape=[25,3]", "+vote.type=float32"],
        "must return labels [f=25, r=3] of torch.int64, got [25, 3] torch.float32",
    ),
    "network's type": (
        "returning_network",
        [],
        "network._target_='broken.returning_network' must return Module, got function",
    ),
    "network's result": ("Pair", [], "must return scores [n, C], got a tuple"),
    "dataset's type": (
        "returning_dataset",
        ["+dataset.labels=0"],
        "dataset._target_='broken.returning_dataset' must return Dataset, got NoneType",
    ),
    "dataset's labels": (
        "returning_dataset",
        [],
        "train_labels must be a tensor [2000] of torch.int64 in 0..9, got 0 to 10",
    ),
    "optimizer's type": (
        "returning_optimizer",
        [],
        "optimizer._target_='broken.returning_optimizer' must return (optimizer, scheduler) of",
    ),
    "annotations": (
        "annotated",
        [],
        "aggregator: the annotations of annotated cannot be read: NameError: name 'Missing'",
    ),
}
KINDS = {"Pair": "network", "annotated": "rule"}
ALL = {name: overrides for name, (overrides, *_) in RAISING.items()} | {
    name: [*SMALL, *chosen(part, KINDS.get(part, "")), *more]
    for name, (part, more, _) in RETURNING.items()
}
PROGRAM = """
import contextlib, io, json, sys
from byzshield_exp.commands import run
for name, arguments in json.load(sys.stdin).items():
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = run.main([*arguments, f"output_dir=out/{name.replace(chr(39), str())}"])
    print(json.dumps([name, code, err.getvalue()]))
"""


FAST = ("attack", "rule's late shape")  # a run takes a second


def marked(names):
    return [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in names]


@pytest.fixture(scope="module")
def end_of(tmp_path_factory):
    """``end_of(name) -> (folder, exit code, stderr)``: in a process that checks no annotations."""
    folder, found = tmp_path_factory.mktemp("parts"), {}
    (folder / "broken.py").write_text(BROKEN)

    def run(names):
        given = {name: ALL[name] for name in names}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(given), capture_output=True, text=True, timeout=280, cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {name: end for name, *end in map(json.loads, done.stdout.splitlines())}

    def end(name):
        if name not in found:
            found.update(run(FAST if name in FAST else ALL.keys() - FAST))
        return folder, *found[name]

    return end


@pytest.mark.parametrize("name", marked(RAISING))
def test_an_error_names_its_place_and_its_traceback_is_in_the_log(end_of, name):
    folder, ended, err = end_of(name)
    _, code, error, where = RAISING[name]
    line = f"{error} (broken.py:{LINES[where]} in {where})"
    assert ended == code, err
    assert line in err
    assert len([one for one in err.splitlines() if not one.startswith("warning: ")]) == 1, err
    if code == 1:
        (log,) = folder.glob(f"out/{name}/*/log.txt")
        text = log.read_text()
        assert "Traceback (most recent call last)" in text
        assert f'broken.py", line {LINES[where]}, in ' in text


@pytest.mark.parametrize("name", marked(RETURNING))
def test_what_is_wrong_with_a_result_is_said_with_what_it_must_be(end_of, name):
    _, code, err = end_of(name)
    assert code in (1, 2)
    assert RETURNING[name][2] in err
    assert len([one for one in err.splitlines() if not one.startswith("warning: ")]) == 1, err


PLACE = rf"KeyError: 'lost' \(\S*broken.py:{LINES['late_attack']} in late_attack\)"
STARTS = {
    "gloo": ["cluster=processes", "cluster.num_processes=3", "cluster.backend=gloo"],
    "sockets": ["cluster=processes", "cluster.num_processes=3", "cluster.backend=sockets"],
}


def assert_it_is_told(done, tmp_path):
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("byzshield_exp: ")]
    assert re.fullmatch(rf"byzshield_exp: rank [12]: {PLACE}.*", lines[-1]), done.stderr
    (log,) = tmp_path.glob("out/*/log.txt")
    assert "Traceback (most recent call last)" in log.read_text()
    assert f'broken.py", line {LINES["late_attack"]}, in late_attack' in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_the_error_of_a_worker_process_reaches_the_terminal(tmp_path, start):
    (tmp_path / "broken.py").write_text(BROKEN)
    done = run_program(
        *SMALL, *chosen("late_attack"), *STARTS[start], f"output_dir={tmp_path}/out",
        **modules_in(tmp_path),
    )  # fmt: skip
    assert_it_is_told(done, tmp_path)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["gloo", pytest.param("sockets", marks=pytest.mark.thorough)])
def test_the_error_of_a_rank_of_torchrun_is_told_by_rank_0(tmp_path, backend):
    (tmp_path / "broken.py").write_text(BROKEN)
    program = torchrun()
    done = subprocess.run(
        [*program[:5], "3", *program[6:], *SMALL, *chosen("late_attack"),
         f"cluster.backend={backend}", f"output_dir={tmp_path}/out"],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, **modules_in(tmp_path)},
    )  # fmt: skip
    assert_it_is_told(done, tmp_path)
