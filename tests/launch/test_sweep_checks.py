"""Every point of a sweep is checked before the first one runs."""

import csv
import dataclasses
import signal

import pytest
import torch
from running import SMALL, modules_in, run_program
from sweeping import RULES, SHORT, manifest, said


def test_all_problems_are_told_and_nothing_runs(cli, tmp_path):
    points = ("K=15,16", "aggregator=median,bulyan", "q=3,99")
    code, out, err = cli("-m", *SHORT, *points, f"output_dir={tmp_path}/out")
    assert code == 2
    assert "sweep: " not in out
    lines = err.splitlines()
    assert lines[-1] == (
        "byzshield_exp: 6 of 8 points cannot run (on_invalid=skip leaves them out)"
    )
    told = [line for line in lines[:-1] if line.startswith("warning: K=")]
    assert len(told) == 6
    assert sum("q=99 must be at most K=" in line for line in told) == 4
    assert sum("mols needs K = r*l" in line for line in told) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sweep", "said"),
    [(["-m", "q=2,4"], "plan: 2 runs: 2 new"), (["q=2"], "/out/dataset=mnist,network=mlp,q=2")],
)
def test_a_plan_needs_no_data(cli, tmp_path, sweep, said):
    """That a data set is missing is said once, not for every point."""
    data = ("dataset=mnist", f"dataset.root={tmp_path}/none", "network=mlp", "plan=true")
    code, out, err = cli(*sweep, *data, f"output_dir={tmp_path}/out")
    assert (code, err.count("warning"), err.count("byzshield prepare")) == (0, 1, 1), err
    assert err.startswith("warning: dataset=mnist is not in dataset.root=")
    assert "mlp on mnist, d=" in out
    assert said in out
    assert not (tmp_path / "out").exists()


def test_impossible_points_are_left_out_on_demand(cli, tmp_path):
    points = ("approach=baseline", "aggregator=median,bulyan,nope", "q=4")
    code, out, err = cli("-m", *SHORT, *points, "on_invalid=skip", f"output_dir={tmp_path}")
    assert code == 0, err
    rows = list(manifest(tmp_path).values())
    assert [row["state"] for row in rows] == ["done", "invalid", "invalid"]
    assert [row["aggregator"] for row in rows] == ["median", "bulyan", "nope"]
    assert "n >= 4*num_corrupt+3" in rows[1]["error"]
    assert "aggregator=nope: no such choice" in rows[2]["error"]
    assert "sweep: 3 runs: 1 new, 2 invalid" in out


def test_points_that_would_share_a_folder_are_refused(cli, tmp_path):
    code, _, err = cli("-m", *SMALL, "steps=2,4", f"output_dir={tmp_path}/out")
    assert code == 2
    assert "a run is the same whatever its steps, and another point has its folder" in err
    code, _, err = cli("-m", *SMALL, "steps=2,4", f"output_dir={tmp_path}/${{steps}}")
    assert code == 0, err


@pytest.mark.parametrize("bad", ["0", "-1"])
def test_the_number_of_runs_side_by_side(cli, tmp_path, bad):
    code, _, err = cli(
        "-m", *SMALL, "q=1,2", f"hydra.launcher.runs={bad}", f"output_dir={tmp_path}"
    )
    assert code == 2
    assert f"hydra.launcher.runs={bad} must be at least 1" in err


def test_the_launcher_for_slurm_has_the_keys_of_its_resources():
    from byzshield_exp.launch.slurm import Resources
    from hydra_plugins.byzshield_slurm_launcher import SlurmLauncherConf

    theirs = dataclasses.asdict(SlurmLauncherConf())
    assert theirs.pop("_target_").endswith(".SlurmLauncher")
    empty = {"setup": [], "additional_parameters": {}}  # Hydra has no other defaults for these
    assert theirs == dataclasses.asdict(Resources()) | empty


@pytest.mark.slow
def test_data_that_the_launchers_machines_will_have(cli, tmp_path):
    """EC2's instances fetch them; on Slurm they must lie on the shared folder, which is here."""
    points = (
        "-m", "dataset=cifar10", f"dataset.root={tmp_path}", "network=resnet20", "q=1,2",
        "plan=true", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    code, out, err = cli(*points, "hydra/launcher=byzshield_ec2")
    assert code == 0, err
    assert out.count("resnet20 on cifar10") == 2
    for launcher in ("local", "byzshield_slurm"):
        code, _, err = cli(*points, f"hydra/launcher={launcher}", "plan=false")
        assert code == 2
        assert f"dataset.root={tmp_path} has no cifar-10-batches-py" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_is_asked_for_where_the_runs_are(cli, tmp_path):
    points = ("-m", *SMALL, "q=1,2", "device=cuda", "plan=true", f"output_dir={tmp_path}")
    code, _, err = cli(*points)
    assert code == 2
    assert err.count("device=cuda: torch sees no GPU on this machine") == 2
    code, out, err = cli(*points, "hydra/launcher=byzshield_slurm")
    assert code == 0, err
    assert "plan: 2 runs: 2 new" in out


def test_a_rule_that_raises_anything_is_a_point_that_cannot_run(cli, tmp_path, monkeypatch):
    (tmp_path / "rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = cli(
        "-m", *SHORT, "aggregator=mean", "aggregator._target_=rules.rule",
        "+aggregator.how=RuntimeError,KeyError,SystemExit,fine", "on_invalid=skip",
        f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert code == 0, err
    with (tmp_path / "out" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["invalid", "invalid", "invalid", "done"]
    assert "aggregator=rules.rule raises RuntimeError: several lines" in rows[0]["error"]
    assert len(err.splitlines()) == 3


@pytest.mark.slow
def test_sigterm_during_the_check_ends_the_sweep(tmp_path):
    (tmp_path / "rules.py").write_text(RULES)
    done = run_program(
        "-m", *SHORT, "aggregator=mean", "aggregator._target_=rules.rule",
        "+aggregator.how=sigterm,fine", "on_invalid=skip", f"output_dir={tmp_path}/out",
        **modules_in(tmp_path),
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("out/*/status.json"))


def test_a_sweep_of_nothing_is_no_sweep(cli, tmp_path):
    where = f"output_dir={tmp_path}/out"
    for given, words in (
        (("on_invalid=bogus", "q=1,2"), "on_invalid=bogus must be one of error, skip"),
        (("on_invalid=skip", "q=98,99"), "the sweep has no point that can run"),
        (("q=range(0,0)",), "the sweep has no point that can run"),
    ):
        code, _, err = cli("-m", *SHORT, *given, where)
        assert (code, err.splitlines()[-1]) == (2, f"byzshield_exp: {words}")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_a_folder_is_told(cli, tmp_path):
    cli("-m", *SHORT, "seed=0,1", f"output_dir={tmp_path}/first")
    name = sorted(path.name for path in (tmp_path / "first").iterdir() if path.is_dir())[0]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    code, _, err = cli("-m", *SHORT, "seed=0,1", f"output_dir={tmp_path}/out")
    assert code == 2
    assert f"{tmp_path}/out/{name} cannot be used" in err


def test_a_value_that_is_not_a_number_is_that_value_again(cli, tmp_path):
    code, out, err = cli(
        "-m", *SHORT, "attack=not_a_number,zero", "plan=true", f"output_dir={tmp_path}"
    )
    assert (code, said(out)[-1]) == (0, "plan: 2 runs: 2 new"), err
