"""Sweeps: checked before they start, each run done once, and none lost."""

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from running import SMALL, run_program, summary_of

SHORT = (*SMALL, "checkpoint_every=2")

CRASHING = """
import os, signal

def forge(knowledge, how: str = "fine", z: float | None = None):
    if how == "raise" and knowledge.step == 2:
        raise ArithmeticError("a rule of the user's own broke")
    if how == "die" and knowledge.step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return knowledge.own_rows()
"""


def manifest(folder):
    """The rows of ``sweep.csv`` by name; of an impossible point by its error."""
    with (folder / "sweep.csv").open() as file:
        return {row["name"] or row["error"]: row for row in csv.DictReader(file)}


def hashes(folder):
    """The parameters of all finished runs."""
    return {
        path.parent.name: json.loads(path.read_text())["parameters_sha256"]
        for path in folder.glob("*/summary.json")
    }


def said(out):
    """The lines, but for how far the check is, which is told on a slow machine."""
    return [line for line in out.splitlines() if not line.startswith("checked ")]


def states(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/status.json")}


def test_a_sweep_and_its_table(cli, tmp_path):
    code, out, err = cli("-m", *SHORT, "approach=mols,detox", "q=0,2", f"output_dir={tmp_path}")
    assert code == 0, err
    rows = manifest(tmp_path)
    assert [(row["approach"], row["q"]) for row in rows.values()] == [
        ("mols", "0"), ("mols", "2"), ("detox", "0"), ("detox", "2"),
    ]  # fmt: skip
    for name, row in rows.items():
        summary = summary_of(tmp_path / name)
        status = states(tmp_path)[name]
        assert (row["state"], row["attempts"], row["error"]) == ("done", "1", "")
        assert float(row["final_accuracy"]) == summary["final_test_accuracy"]
        assert float(row["eps_hat"]) == summary["epsilon_hat"]
        assert float(row["seconds"]) == status["seconds"] > 0
        assert status["state"] == "done"
        assert "done: test accuracy" in (tmp_path / name / "log.txt").read_text()
    assert out.count("done: test accuracy") == 4

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    code, out, err = cli("-m", *SHORT, "approach=mols,detox", "q=0,2", f"output_dir={tmp_path}")
    assert code == 0, err
    assert said(out) == [f"sweep: 4 runs: 4 done; {tmp_path}/sweep.csv"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")} == before
    assert list(manifest(tmp_path)) == list(rows)


def test_the_same_bits_as_a_single_run(cli, run, tmp_path):
    code, _, err = cli("-m", *SHORT, "q=2", "seed=0,1", f"output_dir={tmp_path}/sweep")
    assert code == 0, err
    alone = run("q=2", "seed=1", folder=tmp_path / "alone")
    assert alone["parameters_sha256"] in hashes(tmp_path / "sweep").values()


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


def test_a_point_that_breaks_does_not_stop_the_others(cli, tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    points = (
        "-m", *SHORT, "attack._target_=crashing.forge", "+attack.how=raise,die,fine",
        f"output_dir={tmp_path}/out",
    )  # fmt: skip
    code, _, err = cli(*points)
    assert code == 1
    assert err.splitlines()[-1].startswith("byzshield_exp: of 3 runs 2 failed")
    raised, died, fine = manifest(tmp_path / "out").values()
    assert [row["state"] for row in (raised, died, fine)] == ["failed", "failed", "done"]
    assert raised["error"] == "ArithmeticError: a rule of the user's own broke"
    assert died["error"] == "rank 0, the server, was killed by signal 9"
    status = states(tmp_path / "out")[raised["name"]]
    assert (status["rank"], status["attempts"]) == (0, 1)
    log = Path(status["log"]).read_text()
    assert "Traceback (most recent call last)" in log
    assert "crashing.py" in log

    code, out, _ = cli(*points, "plan=true")
    assert code == 0
    assert "retry: " in out
    assert "plan: 3 runs: 2 retry, 1 done; about " in out
    (tmp_path / "crashing.py").write_text(CRASHING.replace("== 2", "== 99"))
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # another start of the program has a new one
    done = tmp_path / "out" / fine["name"] / "summary.json"
    before = done.stat().st_mtime_ns
    code, out, err = cli(*points)
    assert code == 0, err
    assert "resumes after step 2" in out
    rows = list(manifest(tmp_path / "out").values())
    assert [(row["state"], row["attempts"]) for row in rows] == [
        ("done", "2"), ("done", "2"), ("done", "1"),
    ]  # fmt: skip
    assert [row["error"] for row in rows] == ["", "", ""]
    assert done.stat().st_mtime_ns == before
    assert len(set(hashes(tmp_path / "out").values())) == 1


def test_identical_runs_are_done_once(cli, tmp_path):
    code, out, err = cli(
        "-m", *SHORT, "attack.z=1,1.0", "aggregator=median", f"output_dir={tmp_path}"
    )
    assert code == 0, err
    assert "sweep: 1 runs: 1 new" in out


def test_points_that_would_share_a_folder_are_refused(cli, tmp_path):
    code, _, err = cli("-m", *SMALL, "steps=2,4", f"output_dir={tmp_path}/out")
    assert code == 2
    assert "a run is the same whatever its steps, and another point has its folder" in err
    code, _, err = cli("-m", *SMALL, "steps=2,4", f"output_dir={tmp_path}/${{steps}}")
    assert code == 0, err


def test_a_plan_says_what_and_why(cli, run, tmp_path):
    folder = tmp_path / "out"
    points = ("-m", *SHORT, "q=0,1,2", f"output_dir={folder}")
    code, out, _ = cli(*points, "plan=true")
    assert code == 0
    assert out.count("new: ") == 3
    assert said(out)[-1] == "plan: 3 runs: 3 new"  # no estimate yet
    assert not folder.exists()
    run("q=0", "checkpoint_every=2", folder=folder)
    run("q=1", "checkpoint_every=2", folder=folder / "other")
    (other,) = (folder / "other").iterdir()
    shutil.move(other, folder / other.name)
    code, out, _ = cli(*points, "plan=true", "steps=6")
    assert out.count("(resumes after step 4)") == 2
    code, out, _ = cli(*points, "plan=true")
    assert out.count("done: ") == 2
    assert out.splitlines()[-1].startswith("plan: 3 runs: 2 done, 1 new; about ")


def test_earlier_runs_stay_in_the_table(cli, tmp_path):
    cli("-m", *SHORT, "q=0,1", f"output_dir={tmp_path}")
    first = manifest(tmp_path)
    code, _, err = cli("-m", *SHORT, "attack=none,ipm", "q=1", f"output_dir={tmp_path}")
    assert code == 0, err
    rows = manifest(tmp_path)
    assert len(rows) == 4
    assert all(rows[name]["final_accuracy"] == row["final_accuracy"] for name, row in first.items())
    assert {row["attack"] for row in rows.values()} == {"alie", "none", "ipm"}
    shutil.rmtree(tmp_path / next(iter(first)))
    cli("-m", *SHORT, "attack=none,ipm", "q=1", f"output_dir={tmp_path}")
    assert len(manifest(tmp_path)) == 3


def test_the_table_says_what_became_of_the_runs_of_earlier_sweeps(cli, tmp_path):
    """Their drivers may have been killed, or Slurm has done the runs since."""
    cli("-m", *SHORT, "q=0,1", f"output_dir={tmp_path}")
    done, killed = sorted(states(tmp_path))
    status = tmp_path / killed / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "running"}))
    table = tmp_path / "sweep.csv"
    table.write_text(table.read_text().replace(",done,", ",queued,"))
    cli("-m", *SHORT, "q=2,3", f"output_dir={tmp_path}")
    rows = manifest(tmp_path)
    assert (rows[done]["state"], rows[killed]["state"]) == ("done", "stopped")
    assert rows[done]["final_accuracy"]


def test_drivers_that_write_a_table_at_once_lose_no_row(tmp_path):
    """Each waits for the other between reading the table and writing it."""
    from byzshield_exp.launch.manifest import _locked

    order = []

    def write(name):
        with _locked(tmp_path):
            order.append(name)
            time.sleep(0.3)
            order.append(name)

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert "".join(order) in ("aabb", "bbaa")


def test_a_folder_that_another_process_holds_is_left_to_it(cli, tmp_path, run):
    from byzshield_exp.results.folder import RunFolder

    run("q=1", folder=tmp_path)
    (held,) = (path for path in tmp_path.iterdir() if path.is_dir())
    folder = RunFolder(held)
    with (held / ".lock").open("a+") as lock:
        folder._hold(lock.fileno())
        code, out, err = cli("-m", *SMALL, "q=1,2", f"output_dir={tmp_path}")
        assert code == 0, err
        assert "sweep: 2 runs: 1 running, 1 new" in out
        assert held.name not in out


@pytest.mark.slow
def test_two_drivers_of_one_sweep(tmp_path):
    """Each run is done once, by one of them; neither calls the other's a failure."""
    command = [
        sys.executable, "-m", "byzshield_exp", "-m", *SHORT, "steps=40", "seed=range(8)",
        f"output_dir={tmp_path}",
    ]  # fmt: skip
    drivers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [driver.communicate(timeout=250)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    found = states(tmp_path)
    assert len(found) == 8
    assert {(status["state"], status["attempts"]) for status in found.values()} == {("done", 1)}
    assert {row["state"] for row in manifest(tmp_path).values()} == {"done"}


@pytest.mark.parametrize("bad", ["0", "-1"])
def test_the_number_of_runs_side_by_side(cli, tmp_path, bad):
    code, _, err = cli(
        "-m", *SMALL, "q=1,2", f"hydra.launcher.runs={bad}", f"output_dir={tmp_path}"
    )
    assert code == 2
    assert f"hydra.launcher.runs={bad} must be at least 1" in err


def test_runs_side_by_side_have_the_same_bits(cli, tmp_path):
    points = ("-m", *SHORT, "q=0,1,2", "approach=mols,detox")
    for runs in (1, 3):
        code, out, err = cli(
            *points, f"hydra.launcher.runs={runs}", f"output_dir={tmp_path}/{runs}"
        )
        assert code == 0, err
    assert hashes(tmp_path / "1") == hashes(tmp_path / "3")
    assert "step 4/4" not in out  # it is in each run's log
    for log in (tmp_path / "3").glob("*/log.txt"):
        assert log.read_text().count("step 4/4") == 1


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_processes_in_a_sweep(cli, tmp_path, launcher):
    code, _, err = cli(
        "-m", *SHORT, "q=1,2", f"hydra/launcher={launcher}", "cluster=processes",
        "cluster.num_processes=3", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert code == 0, err
    cli("-m", *SHORT, "q=1,2", f"output_dir={tmp_path}/alone")
    assert set(hashes(tmp_path / "out").values()) == set(hashes(tmp_path / "alone").values())


def test_another_launcher_fails_points_too(cli, tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    code, _, _ = cli(
        "-m", *SHORT, "attack._target_=crashing.forge", "+attack.how=raise,fine",
        "hydra/launcher=basic", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert code == 1
    assert [row["state"] for row in manifest(tmp_path / "out").values()] == ["failed", "done"]


def test_a_job_needs_no_conf(cli, tmp_path):
    """What was checked is what runs, wherever and whenever."""
    cli("-m", *SHORT, "q=1,2", f"output_dir={tmp_path}/out")
    (first, _) = sorted((tmp_path / "out").glob("*/job.json"))
    before = hashes(tmp_path / "out")[first.parent.name]
    (first.parent / "summary.json").unlink()
    shutil.rmtree(first.parent / "checkpoints")
    code = (
        "import sys; sys.modules['hydra'] = sys.modules['omegaconf'] = None\n"
        "from byzshield_exp.commands.job import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(first)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "out")[first.parent.name] == before
    again = run_program("job", str(first))
    assert again.returncode == 0
    assert "finished: " in again.stdout


def test_a_job_that_is_none(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    done = run_program("job", str(tmp_path / "job.json"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be read" in done.stderr


def test_a_job_with_other_data_is_refused(cli, tmp_path):
    cli("-m", *SHORT, "q=1,2", f"output_dir={tmp_path}/out")
    path = sorted((tmp_path / "out").glob("*/job.json"))[0]
    job = json.loads(path.read_text())
    for processes in (1, 3):
        job["data"] = "00" * 32
        job["config"]["output_dir"] = str(tmp_path / f"other{processes}")
        job["config"]["cluster"]["num_processes"] = processes
        path.write_text(json.dumps(job))
        done = run_program("job", str(path))
        assert done.returncode == 2
        assert "holds other data on this machine" in done.stderr


POINTS = (
    "approach=mols,detox,baseline", "attack=alie,reversed_gradient", "q=0,2,3", "seed=range(2)",
)  # fmt: skip


def in_the_middle(folder):
    """Whether a run has a checkpoint and no result yet."""
    started = {path.parents[1].name for path in folder.glob("*/checkpoints/step_*3.pt")}
    return started - hashes(folder).keys()


def sweep_of_36(folder, *more):
    return [
        sys.executable, "-m", "byzshield_exp", "-m", *POINTS, "steps=12", "checkpoint_every=3",
        "eval_every=6", f"output_dir={folder}", *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_thirty_six_points_with_a_killed_driver(tmp_path):
    """The digits; the driver is killed twice in the middle, and again before it has begun."""
    undisturbed = subprocess.run(
        sweep_of_36(tmp_path / "a"), capture_output=True, text=True, timeout=700
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert len(hashes(tmp_path / "a")) == 36
    folder, done = tmp_path / "b", 0
    for share in (0.2, 0.6):
        driver = subprocess.Popen(
            sweep_of_36(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while (done := len(hashes(folder))) < 36 * share or not in_the_middle(folder):
            assert driver.poll() is None
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert done < 36
    last = subprocess.run(sweep_of_36(folder), capture_output=True, text=True, timeout=700)
    assert last.returncode == 0, last.stderr
    assert hashes(folder) == hashes(tmp_path / "a")
    rows = manifest(folder)
    assert len(rows) == 36
    assert {row["state"] for row in rows.values()} == {"done"}
    assert 1 <= sum(row["attempts"] == "2" for row in rows.values()) <= 2
    again = subprocess.run(sweep_of_36(folder), capture_output=True, text=True, timeout=300)
    assert said(again.stdout) == [f"sweep: 36 runs: 36 done; {folder}/sweep.csv"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_six_points_of_which_one_is_impossible_and_one_crashes(tmp_path):
    (tmp_path / "crashing.py").write_text(CRASHING)
    (tmp_path / "conf" / "attack").mkdir(parents=True)
    (tmp_path / "conf" / "attack" / "crashing.yaml").write_text(
        "_target_: crashing.forge\nhow: raise\n"
    )
    points = (
        "-m", *SHORT, "approach=baseline", "aggregator=median,mean,bulyan",
        "attack=none,alie,crashing", "q=0,4", "seed=0,1", "on_invalid=skip",
    )  # fmt: skip
    command = [
        sys.executable, "-m", "byzshield_exp", "--config-dir", str(tmp_path / "conf"), *points,
        f"output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def start():
        return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)

    first = start()
    assert first.returncode == 1, first.stderr
    table = (tmp_path / "out" / "sweep.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == 36
    for row in rows:
        is_impossible = row["aggregator"] == "bulyan" and row["q"] == "4"
        crashes = row["attack"] == "crashing" and row["q"] == "4"
        state = "invalid" if is_impossible else "failed" if crashes else "done"
        assert row["state"] == state, row
        assert bool(row["final_accuracy"]) == (state == "done")
    second = start()
    assert second.returncode == 1
    assert "sweep: 36 runs: " in second.stdout
    for part in ("26 done", "4 retry", "6 invalid"):
        assert part in second.stdout
    after = manifest(tmp_path / "out")
    assert {row["attempts"] for row in after.values() if row["state"] == "done"} == {"1"}
    assert {row["attempts"] for row in after.values() if row["state"] == "failed"} == {"2"}


@pytest.mark.slow
def test_sigterm_stops_runs_side_by_side(tmp_path):
    command = [
        sys.executable, "-m", "byzshield_exp", "-m", *SMALL, "steps=100000", "seed=0,1,2,3",
        "hydra.launcher.runs=2", f"output_dir={tmp_path}",
    ]  # fmt: skip
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while len(list(tmp_path.glob("*/checkpoints/step_*.pt"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 75, err
    found = states(tmp_path)
    assert [status["state"] for status in found.values()] == ["stopped", "stopped"]
    assert all("in a checkpoint" in status["error"] for status in found.values())


def test_the_launcher_for_slurm_has_the_keys_of_its_resources():
    from byzshield_exp.launch.slurm import Resources
    from hydra_plugins.byzshield_slurm_launcher import SlurmLauncherConf

    theirs = dataclasses.asdict(SlurmLauncherConf())
    assert theirs.pop("_target_").endswith(".SlurmLauncher")
    empty = {"setup": [], "additional_parameters": {}}  # Hydra has no other defaults for these
    assert theirs == dataclasses.asdict(Resources()) | empty


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
        code, _, err = cli(*points, f"hydra/launcher={launcher}")
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
    assert "aggregator=mean raises RuntimeError: several lines" in rows[0]["error"]
    assert len(err.splitlines()) == 3


@pytest.mark.slow
def test_sigterm_during_the_check_ends_the_sweep(tmp_path):
    (tmp_path / "rules.py").write_text(RULES)
    done = run_program(
        "-m", *SHORT, "aggregator=mean", "aggregator._target_=rules.rule",
        "+aggregator.how=sigterm,fine", "on_invalid=skip", f"output_dir={tmp_path}/out",
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("out/*/status.json"))


def test_an_error_of_a_rule_is_in_the_log(cli, tmp_path, monkeypatch):
    (tmp_path / "rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    code, _, _ = cli(
        "-m", *SHORT, "aggregator=mean", "aggregator._target_=rules.rule",
        "+aggregator.how=late,fine", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert code == 1
    (failed,) = (s for s in states(tmp_path / "out").values() if s["state"] == "failed")
    log = Path(failed["log"]).read_text()
    assert "a ValueError of the user's" in failed["error"]
    assert "in rule" in log
    assert f"failed: {failed['error']}" in log


RULES = """
def rule(rows, num_corrupt: int, how: str = "fine"):
    if how == "late" and rows.shape[1] > 2:
        raise ValueError("a ValueError of the user's")
    if how == "sigterm":
        import os, signal
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "SystemExit":
        raise SystemExit(0)
    if how not in ("fine", "late", "sigterm"):
        raise {"RuntimeError": RuntimeError, "KeyError": KeyError}[how]("several lines\\nof it")
    return rows.mean(dim=0)
"""


def test_several_output_dirs_have_a_table_each(cli, tmp_path):
    folders = f"output_dir={tmp_path}/a,{tmp_path}/b"
    code, out, err = cli("-m", *SHORT, "seed=0,1", folders)
    assert code == 0, err
    for folder in ("a", "b"):
        rows = manifest(tmp_path / folder)
        assert len(rows) == 2
        assert {row["output_dir"] for row in rows.values()} == {f"{tmp_path}/{folder}"}
    code, out, _ = cli("-m", *SHORT, "seed=0,1", folders, "plan=true")
    assert out.count(f"done: {tmp_path}/a/") == out.count(f"done: {tmp_path}/b/") == 2


def test_a_sweep_of_nothing_is_no_sweep(cli, tmp_path):
    where = f"output_dir={tmp_path}/out"
    for given, said in (
        (("on_invalid=bogus", "q=1,2"), "on_invalid=bogus must be one of error, skip"),
        (("on_invalid=skip", "q=98,99"), "the sweep has no point that can run"),
        (("q=range(0,0)",), "the sweep has no point that can run"),
    ):
        code, _, err = cli("-m", *SHORT, *given, where)
        assert (code, err.splitlines()[-1]) == (2, f"byzshield_exp: {said}")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_a_folder_is_told(cli, tmp_path):
    cli("-m", *SHORT, "seed=0,1", f"output_dir={tmp_path}/first")
    name = sorted(path.name for path in (tmp_path / "first").iterdir() if path.is_dir())[0]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    code, _, err = cli("-m", *SHORT, "seed=0,1", f"output_dir={tmp_path}/out")
    assert code == 2
    assert f"{tmp_path}/out/{name} cannot be used" in err


def test_a_job_lies_where_its_output_dir_is(tmp_path):
    """A relative one counts from where the sweep was started, not from where the job is."""
    run = ["-m", "byzshield_exp", "-m", *SHORT, "q=1,2", "output_dir=here"]
    done = subprocess.run(
        [sys.executable, *run], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    (path, _) = (tmp_path / "here").glob("*/job.json")
    again = run_program("job", str(path))
    assert "finished: " in again.stdout
    assert not Path("here").exists()


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("early", [True, False])
def test_ctrl_c_also_twice_and_early_stops_a_sweep_in_order(tmp_path, runs, early):
    command = [
        sys.executable, "-m", "byzshield_exp", "-m", *SMALL, "steps=3000", "seed=range(12)",
        "checkpoint_every=100000", f"hydra.launcher.runs={runs}", f"output_dir={tmp_path}",
    ]  # fmt: skip
    driver = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    begun = "*/status.json" if early else "*/metrics.jsonl"
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob(begun)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    for _ in range(3):
        os.killpg(driver.pid, signal.SIGINT)
        time.sleep(0.3)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert err.splitlines()[-1] == "byzshield_exp: interrupted; the same command resumes"
    assert "Traceback" not in err
    ended = [status["state"] for status in states(tmp_path).values()]
    assert 1 <= len(ended) <= runs + 1
    assert "running" not in ended
    assert "failed" not in ended
