"""Sweepers and launchers of other people: the real packages, where they are installed."""

import pytest
import yaml
from callback_notes import install, is_here, noted
from running import modules_in, run_program
from sweeping import CRASHING, SHORT, hashes, manifest

OPTUNA = (
    "hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=2",
    "hydra.sweeper.n_jobs=2", "optimizer.lr=interval(0.01,0.2)", "dataset.num_validation=100",
)  # fmt: skip
LAUNCHERS = ["basic", pytest.param("local", marks=pytest.mark.slow)]
PACKAGES = {
    "optuna": "hydra_plugins.hydra_optuna_sweeper",
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
}


def sweep(folder, *overrides):
    """Do a sweep in a process of its own, with an attack that may break and the callback."""
    (folder / "crashing.py").write_text(CRASHING)
    return run_program(
        "-m", *SHORT, install(folder), f"output_dir={folder}/out", *overrides,
        timeout=240, **modules_in(folder),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_basic_sweeper_has_the_runs_of_ours(cli, tmp_path, launcher):
    points = ("-m", *SHORT, "q=1,2", f"hydra/launcher={launcher}")
    code, _, err = cli(*points, "hydra/sweeper=basic", f"output_dir={tmp_path}/theirs")
    assert code == 0, err
    cli(*points, f"output_dir={tmp_path}/ours")
    assert hashes(tmp_path / "theirs") == hashes(tmp_path / "ours")
    assert len(hashes(tmp_path / "ours")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_an_impossible_point_of_another_sweeper(cli, tmp_path, launcher):
    points = (
        "-m", *SHORT, "hydra/sweeper=basic", f"hydra/launcher={launcher}",
        "approach=baseline", "aggregator=bulyan,mean", "q=4", f"output_dir={tmp_path}",
    )  # fmt: skip
    code, _, err = cli(*points)
    assert code == 2
    assert "bulyan needs n >= 4*num_corrupt+3" in err.splitlines()[-1]
    code, _, err = cli(*points, "on_invalid=skip")
    assert code == 0, err
    assert [name.split(",")[0] for name in hashes(tmp_path)] == ["aggregator=mean"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_plan_of_another_sweeper_runs_nothing(cli, tmp_path, launcher):
    code, out, err = cli(
        "-m", *SHORT, "hydra/sweeper=basic", f"hydra/launcher={launcher}", "q=1,2", "plan=true",
        f"output_dir={tmp_path}",
    )  # fmt: skip
    assert code == 0, err
    assert out.count("new: ") == 2
    assert hashes(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        "local",
        "submitit_local",
        pytest.param("basic", marks=pytest.mark.thorough),
        pytest.param("joblib", marks=pytest.mark.thorough),
    ],
)
def test_optuna_maximises_the_validation_accuracy(tmp_path, launcher):
    for package in {PACKAGES["optuna"], PACKAGES.get(launcher, "hydra")}:
        pytest.importorskip(package)
    done = sweep(tmp_path, *OPTUNA, f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.stderr
    best = yaml.safe_load((tmp_path / "out" / "optimization_results.yaml").read_text())
    ends = [note for note in noted(tmp_path) if note["what"] == "end"]
    assert [note["status"] for note in ends] == ["COMPLETED"] * 2
    assert best["best_value"] == max(float(note["value"]) for note in ends)
    best_folders = [note["folder"] for note in ends if float(note["value"]) == best["best_value"]]
    chosen = f"optimizer.lr={best['best_params']['optimizer.lr']}"
    assert any(folder.endswith(chosen) for folder in best_folders)
    assert len(hashes(tmp_path / "out")) == 2
    assert "test accuracy" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", pytest.param("basic", marks=pytest.mark.thorough)])
def test_a_trial_that_fails_is_a_failed_trial(tmp_path, launcher):
    pytest.importorskip(PACKAGES["optuna"])
    done = sweep(
        tmp_path, OPTUNA[0], f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.max_failure_rate=1", "attack._target_=crashing.forge",
        "+attack.how=raise,fine", "hydra.sweeper.n_trials=6",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = [note for note in noted(tmp_path) if note["what"] == "end"]
    assert len(ends) == 6
    for note in ends:
        assert note["status"] == ("COMPLETED" if "+attack.how=fine" in note["task"] else "FAILED")
    failed = [note for note in ends if note["status"] == "FAILED"]
    assert done.stdout.count("Failed experiment: ") == len(failed)
    assert "chooses by the test accuracy" in done.stderr
    assert "looks for the lowest accuracy" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", ["submitit_local", pytest.param("joblib", marks=pytest.mark.thorough)]
)
def test_other_launchers_run_what_our_sweeper_has_checked(cli, tmp_path, launcher):
    pytest.importorskip(PACKAGES[launcher])
    points = ("attack._target_=crashing.forge", "+attack.how=raise,fine", "q=2")
    done = sweep(tmp_path, *points, f"hydra/launcher={launcher}")
    assert done.returncode == 1
    rows = manifest(tmp_path / "out")
    assert [row["state"] for row in rows.values()] == ["failed", "done"]
    assert "a rule of the user's own broke" in done.stderr.splitlines()[-2]
    ends = [note for note in noted(tmp_path) if note["what"] == "end"]
    assert sorted(note["status"] for note in ends) == ["COMPLETED", "FAILED"]
    for note in ends:
        assert not is_here(note)
        assert note["q"] == 2
    (tmp_path / "mended").touch()
    again = sweep(tmp_path, *points, f"hydra/launcher={launcher}")
    assert again.returncode == 0, again.stderr
    assert "2 runs: 1 retry, 1 done;" in again.stdout
