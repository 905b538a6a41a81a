"""The choice of settings: as ten lines of pandas make it, and what is printed of it."""

import itertools
import json
import shlex

import pytest
from running import SMALL

pytest.importorskip("pandas", reason="needs pandas, which the extra report has")

import numpy as np
import pandas

from byzshield_exp.commands.verbs import dispatch
from byzshield_exp.report.again import commands_again
from byzshield_exp.report.best import choose, criterion, spelled_value

OVER, WORST = ["optimizer.lr", "worker_momentum"], ["attack"]
VARIED = ["approach", "q", "optimizer.lr", "worker_momentum", "attack", "attack.z", "seed"]


def made_up(seed, kept=0.97, states=("done", "diverged", "failed")):
    """A table of runs: some are missing, some failed, some diverged."""
    random = np.random.default_rng(seed)
    grid = itertools.product(
        ["mols", "detox"], [2, 3], [0.1, 0.05, 0.025], [0.0, 0.9], ["alie", "ipm", "foe"], [0, 1, 2]
    )
    rows = [
        dict(zip(["approach", "q", *OVER, "attack", "seed"], point, strict=True))
        | {
            "attack.z": 1.0 if point[4] == "alie" else None,
            "state": random.choice(states, p=[0.96, 0.02, 0.02]),
            "error": "", "validation_accuracy": round(random.random(), 1), "steps": 200,
        }
        for point in grid
        if random.random() < kept
    ]  # fmt: skip
    table = pandas.DataFrame(rows)
    table.loc[table["state"] == "failed", "validation_accuracy"] = np.nan
    return table


def oracle(runs, by):
    """By case, the settings that are chosen."""
    runs = runs.assign(value=runs["validation_accuracy"].where(runs["state"] != "diverged", 0.0))
    pairs = runs.assign(pair=runs["attack"] + runs["seed"].astype(str))
    asked = pairs.groupby(by)["pair"].nunique()
    pairs = pairs[pairs["state"] != "failed"]
    there = pairs.groupby(by + OVER)["pair"].nunique()
    means = pairs.groupby(by + OVER + WORST)["value"].mean()
    values = means.groupby(level=by + OVER).min()
    values = values[[there[at] == asked[at[: len(by)]] for at in values.index]]
    best = values.groupby(level=by).transform("max")
    return {at for at in values.index[np.isclose(values, best)]}


@pytest.mark.parametrize("kept", [1.0, 0.97])
def test_it_agrees_with_pandas(kept):
    lacked = chosen = 0
    for seed in range(5):
        runs = made_up(seed, kept)
        what = criterion([key for key in VARIED if key != "attack.z"], OVER, WORST)
        found = choose(runs, what)
        ours = {
            (*selection.case.values(), *one.settings.values())
            for selection in found
            for one in selection.chosen
        }
        assert ours == oracle(runs, ["approach", "q"])
        chosen += len(ours)
        lacked += sum(bool(one.lacking) for its in found for one in its.candidates)
    assert chosen >= 5 * 4
    assert lacked > 5


def test_what_is_averaged_and_what_is_chosen_for_separately():
    what = criterion(VARIED, OVER, WORST, by=["approach"])
    assert (what.by, what.averaged) == (("approach",), ("q", "attack.z", "seed"))
    assert criterion(VARIED, OVER, WORST).by == ("approach", "q", "attack.z")


def test_a_setting_that_lacks_runs_is_named_and_not_chosen():
    runs = made_up(0, 1.0, ("done",) * 3)
    runs["validation_accuracy"] = runs["optimizer.lr"]  # 0.1 is best
    lost = (runs["optimizer.lr"] == 0.1) & (runs["attack"] == "ipm") & (runs["seed"] == 2)
    failed = lost & (runs["worker_momentum"] == 0.9)
    runs.loc[failed, ["state", "error"]] = ["failed", "rank 2 was killed"]
    runs = runs[~lost | failed]
    for selection in choose(runs, criterion([*VARIED[:-2], "seed"], OVER, WORST)):
        assert [one.settings["optimizer.lr"] for one in selection.chosen] == [0.05, 0.05]
        first, second = [one.lacking for one in selection.candidates if one.lacking]
        assert first == ["missing: attack=ipm seed=2"]
        assert second == ["failed: attack=ipm seed=2 (rank 2 was killed)"]


def test_a_run_that_diverged_counts_as_0_whatever_it_had_reached():
    runs = made_up(0, 1.0, ("done",) * 3)
    runs["validation_accuracy"] = 0.5
    best = runs["optimizer.lr"] == 0.1
    runs.loc[best, "validation_accuracy"] = 0.9
    runs.loc[best & (runs["seed"] == 1) & (runs["attack"] == "foe"), "state"] = "diverged"
    values = {
        one.settings["optimizer.lr"]: (one.value, one.diverged)
        for one in choose(runs, criterion([*VARIED[:-2], "seed"], OVER, WORST))[0].candidates
    }
    assert values == {0.1: (pytest.approx(0.6), 1), 0.05: (0.5, 0), 0.025: (0.5, 0)}


def test_the_commands_keep_what_a_choice_of_the_attack_needs():
    """One command for all attacks, or one each where an attack has keys of its own."""
    runs = made_up(0, 1.0, ("done",) * 3)
    runs = runs[(runs["approach"] == "mols") & (runs["q"] == 3)]
    head = "byzshield run approach=mols 'network.hidden=[16]' optimizer.lr="
    runs["command"] = [
        f"{head}{lr} attack={attack} seed={seed} dataset.num_validation=300 output_dir='a b'"
        for lr, attack, seed in zip(runs["optimizer.lr"], runs["attack"], runs["seed"], strict=True)
    ]
    what = criterion(["optimizer.lr", "attack", "seed"], ["optimizer.lr"], ["attack"])
    one = choose(runs, what)[0].chosen[0]
    lr = one.settings["optimizer.lr"]
    end = "'seed=range(3,5)' steps=200 dataset.num_validation=0 output_dir=final"
    assert commands_again(one, what, 2, None, "final") == [
        f"{head.replace('run', 'run -m')}{lr} attack=alie,ipm,foe {end}"
    ]
    one.runs["command"] = one.runs["command"].str.replace("attack=alie", "attack=alie attack.z=1.0")
    first, second = commands_again(one, what, 2, 1040, "final")
    assert "attack.z=1.0 attack=alie 'seed=range(3,5)' steps=1040" in first
    assert "attack=ipm,foe" in second
    assert "attack.z" not in second


def test_the_commands_keep_attacks_of_ones_own_as_they_were_typed():
    runs = made_up(0, 1.0, ("done",) * 3)
    runs = runs[(runs["approach"] == "mols") & (runs["q"] == 3)]
    runs["attack.factor"] = [{"alie": 1.0, "ipm": 2.0}.get(name, 3.0) for name in runs["attack"]]
    runs["attack"] = "my_attack.overshoot"
    runs["command"] = [
        f"byzshield run attack=none +attack._target_=my_attack.overshoot +attack.factor={factor} "
        f"optimizer.lr={lr} seed={seed}"
        for factor, lr, seed in zip(
            runs["attack.factor"], runs["optimizer.lr"], runs["seed"], strict=True
        )
    ]
    varied = ["optimizer.lr", "attack", "attack.factor", "seed"]
    what = criterion(varied, ["optimizer.lr"], ["attack", "attack.factor"])
    one = choose(runs, what)[0].chosen[0]
    end = "'seed=range(3,4)' steps=200 dataset.num_validation=0 output_dir=final"
    assert commands_again(one, what, 1, None, "final") == [
        "byzshield run -m attack=none +attack._target_=my_attack.overshoot "
        f"optimizer.lr={one.settings['optimizer.lr']} +attack.factor=1,2,3 {end}"
    ]


def test_values_are_spelled_as_typed():
    values = [3.0, np.float64(0.0015625), np.int64(2), None, float("nan"), (1, 2.5), True, "alie"]
    spelled = ["3", "0.0015625", "2", "null", "null", "[1,2.5]", "true", "alie"]
    assert [spelled_value(value) for value in values] == spelled


@pytest.mark.slow
def test_a_real_sweep(cli, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = (
        *SMALL, "dataset.num_validation=300", "approach=mols,baseline",
        "optimizer.lr=0.2,1e20", "attack=alie,reversed_gradient", "seed=0,1", "steps=2",
    )  # fmt: skip
    code, _, err = cli("-m", *sweep)
    assert code == 0, err
    assert dispatch(["best", "outputs", "over=optimizer.lr", "worst=attack"]) == 0
    out = capsys.readouterr().out
    runs = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/summary.json")]
    assert len(runs) == 16
    assert out.count("best: optimizer.lr=0.") == 2
    assert out.count("0.0000 (0.0000 to 0.0000)  4, 4 diverged") == 2
    commands = [line.strip() for line in out.splitlines() if "byzshield run -m" in line]
    assert len(commands) == 2
    for command in commands:
        code, plan, err = cli(*shlex.split(command)[2:], "plan=true")
        assert code == 0, err
        assert "plan: 10 runs: 10 new" in plan
    failed = next(tmp_path.glob("outputs/approach=baseline*lr=0.2*/status.json"))
    failed.write_text(json.dumps({"state": "failed", "error": "rank 2 was killed"}))
    assert dispatch(["best", "outputs", "over=optimizer.lr", "worst=attack"]) == 0
    assert "(rank 2 was killed)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_papers_search_is_a_preset(cli, capsys, tmp_path):
    small = ("scale=smoke", "network=mlp", "dataset.num_validation=237", f"output_dir={tmp_path}")
    search = ("hydra.sweeper.only=[every15,every50]", "optimizer.lr=0.1,0.05", "steps=1")
    code, _, err = cli("experiment=tuning/byzshield", *small, *search)
    assert code == 0, err
    over = "over=optimizer.lr,optimizer.decay,optimizer.decay_every"
    assert dispatch(["best", str(tmp_path), over, "steps=300"]) == 0
    out = capsys.readouterr().out
    assert out.count("best: ") == 1
    command = next(line.strip() for line in out.splitlines() if "byzshield run -m" in line)
    code, plan, err = cli(*shlex.split(command)[2:], "plan=true")
    assert code == 0, err
    assert plan.splitlines()[-1] == "plan: 5 runs: 5 new"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["over=q"], "no folder of runs is given: byzshield best outputs over=..."),
        (["."], "over is not given: the settings to choose; what varies is nothing"),
        ([".", "over=qq"], "over=qq: no run has a setting qq; what varies is nothing"),
        ([".", "over=q", "worst=q"], "worst=q: q cannot be taken, it is given twice"),
        ([".", "over=q", "by=seed"], "by=seed: seed cannot be taken, the mean is over seeds"),
        ([".", "over=q"], "no finished run has a validation accuracy: give the runs dataset."),
        ([".", "over=q", "seeds=0"], "seeds=0 must be a whole number of at least 1"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, arguments, line):
    config = {"q": 3, "seed": 0, "steps": 4, "choices": {"attack": "alie"}}
    (tmp_path / "q=3").mkdir()
    (tmp_path / "q=3" / "job.json").write_text(json.dumps({"config": config}))
    monkeypatch.chdir(tmp_path)
    assert dispatch(["best", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"byzshield_exp: {line}")
