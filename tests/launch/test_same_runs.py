"""Runs that cannot differ: one is computed, and the others are links to it."""

import json

import pytest
import yaml
from running import SMALL
from sweeping import manifest, said, states

from byzshield_exp.results import load
from byzshield_exp.results.folder import differing_keys
from byzshield_exp.results.links import essence, same_as

ATTACKS = ("alie", "foe", "none", "label_flip", "min_max")
BTARD = ("approach=btard", "K=4", "batch_size=40")
SLOW = pytest.mark.slow
PAIRS = [  # both of each cannot differ
    (("q=0", "attack=label_flip", "adversary=random"), ("q=0", "attack=alie", "adversary.start=3")),
    pytest.param(
        ("q=2", "attack=none", "adversary=random"),
        ("q=2", "attack=alie", "adversary=none"),
        marks=SLOW,
    ),
    pytest.param(
        ("q=2", "attack=foe", "adversary=none"),
        ("q=2", "attack=min_max", "adversary=none"),
        marks=SLOW,
    ),
    pytest.param(
        ("q=2", "attack=none", "poison_statistics=true"), ("q=2", "attack=none"), marks=SLOW
    ),
    pytest.param(
        (*BTARD, "q=0", "cheat=wrong_sum", "attack=sign_flip"),
        (*BTARD, "q=0", "attack=none"),
        marks=SLOW,
    ),
]
OTHERS = [  # these can
    (("q=0",), ("q=1", "attack=none")),
    (("q=2", "attack=alie"), ("q=2", "attack=none")),
    ((*BTARD, "q=1", "attack=none", "cheat=wrong_sum"), (*BTARD, "q=1", "attack=none")),
    (("q=0", "attack._target_=own_attack.forge", "attack.z=1"), ("q=0",)),
]


def measured(folder):
    """What runs that cannot differ have in common: all but times, memory and warnings."""
    (path,) = folder.glob("*/summary.json")
    summary = json.loads(path.read_text())
    timed = ("seconds_per_step", "server_memory_bytes")
    lines = (path.parent / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record.pop("seconds")
    return {key: summary[key] for key in summary if key not in timed}, records


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_what_cannot_differ_does_not(run, plain_config, tmp_path, one, other):
    found = []
    for folder, overrides in ((tmp_path / "one", one), (tmp_path / "other", other)):
        run(*overrides, "steps=3", folder=folder)
        found.append(measured(folder))
    assert found[0] == found[1]
    assert not differing_keys(essence(plain_config(*one)), essence(plain_config(*other)))


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_what_may_differ_is_not_taken_for_the_same(plain_config, one, other):
    assert essence(plain_config(*one)) != essence(plain_config(*other))


@pytest.mark.slow
def test_five_attacks_without_liars_are_one_run(cli, run, tmp_path):
    points = ("-m", *SMALL, "q=0", f"attack={','.join(ATTACKS)}", f"output_dir={tmp_path}")
    code, out, err = cli(*points, "plan=true")
    assert code == 0, err
    assert said(out)[-1] == "plan: 5 runs: 1 new, 4 same"
    code, out, err = cli(*points)
    assert code == 0, err
    assert out.count("done: test accuracy") == 1
    assert said(out)[-1] == "5 of 5 done; 4 of them cannot differ from another and link to it"
    first, *others = manifest(tmp_path)
    assert [row["same_as"] for row in manifest(tmp_path).values()] == ["", *[first] * 4]
    runs, steps, _ = load(tmp_path)
    assert set(runs["attack"]) == set(ATTACKS)
    assert runs["parameters_sha256"].nunique() == 1
    assert sorted(runs["same_as"].fillna("")) == ["", *[first] * 4]
    assert len(steps) == 5 * len(set(steps["step"]))
    assert len(list(tmp_path.glob("*/events*"))) == 5

    code, out, err = cli(*points)
    assert (code, said(out)[0]) == (0, f"sweep: 5 runs: 5 done; {tmp_path}/sweep.csv"), err
    code, out, err = cli(*SMALL, "q=0", "attack=foe", f"output_dir={tmp_path}")
    assert (code, "\nfinished: " in out) == (0, True), err

    foe = next(name for name in others if name.startswith("attack=foe"))
    before = {path: path.read_bytes() for path in (tmp_path / first).glob("*") if path.is_file()}
    code, out, err = cli(*SMALL, "q=0", "attack=foe", "steps=6", f"output_dir={tmp_path}")
    assert (code, "\nnew: " in out) == (0, True), err
    assert same_as(tmp_path / foe) is None
    assert json.loads((tmp_path / foe / "summary.json").read_text())["steps"] == 6
    assert not [path for path in (tmp_path / foe).iterdir() if path.is_symlink()]
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_links_are_replaced_with_more_steps_and_with_overwrite(cli, tmp_path):
    points = ("-m", *SMALL, "q=0", "attack=alie,foe,ipm", f"output_dir={tmp_path}")
    assert cli(*points)[0] == 0
    first, foe, ipm = manifest(tmp_path)
    code, out, err = cli(*points, "steps=6")
    assert (code, said(out)[0].partition("; ")[0]) == (0, "sweep: 3 runs: 1 resume, 2 same"), err
    assert load(tmp_path).runs["steps_done"].tolist() == [6, 6, 6]
    code, out, err = cli(*SMALL, "q=0", "attack=foe", "overwrite=true", f"output_dir={tmp_path}")
    assert (code, "new (overwrite=true): " in out) == (0, True), err
    assert same_as(tmp_path / foe) is None
    assert json.loads((tmp_path / first / "summary.json").read_text())["steps"] == 6
    assert same_as(tmp_path / ipm) == first
    code, out, err = cli(*points, "overwrite=true")
    assert (code, said(out)[0].partition("; ")[0]) == (0, "sweep: 3 runs: 1 new, 2 same"), err
    assert [same_as(tmp_path / name) for name in (first, foe, ipm)] == [None, first, first]
    for name, attack in ((first, "alie"), (foe, "foe"), (ipm, "ipm")):
        config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        assert (config["choices"]["attack"], config["steps"]) == (attack, 4)
    assert load(tmp_path).runs["steps_done"].tolist() == [4, 4, 4]


FAILING = """
from pathlib import Path

def rule(rows, num_corrupt: int):
    if rows.shape[1] > 2 and Path(__file__).with_name("fails").exists():
        raise ArithmeticError("broken")
    return rows.mean(dim=0)
"""


@pytest.mark.slow
def test_one_that_fails_is_tried_again_once_for_all(cli, tmp_path, monkeypatch):
    (tmp_path / "failing_rule.py").write_text(FAILING)
    (tmp_path / "fails").touch()
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    own = ("aggregator=mean", "aggregator._target_=failing_rule.rule")
    points = ("-m", *SMALL, *own, "q=0", "attack=alie,foe,ipm", f"output_dir={out}")
    code, told, _ = cli(*points)
    assert code == 1
    last = said(told)[-1].replace(f"{tmp_path}/", "")
    broken = "ArithmeticError: broken (failing_rule.py:6 in rule)"
    assert last.startswith(f"0 of 3 done, 3 failed ({broken}); 2 of them")
    (status,) = states(out).values()
    assert status["attempts"] == 1
    (tmp_path / "fails").unlink()
    code, told, err = cli(*points)
    assert (code, said(told)[0].partition("; ")[0]) == (0, "sweep: 3 runs: 1 retry, 2 same"), err
    assert [status["attempts"] for status in states(out).values()] == [2, 2, 2]
    assert said(told)[-1].startswith("3 of 3 done; 2 of them")
