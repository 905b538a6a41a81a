"""Sweeps whose driver is killed, stopped or one of two: each run is done once, and none is lost."""

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from running import SMALL, modules_in
from sweeping import CRASHING, SHORT, hashes, manifest, said, states


@pytest.mark.slow
def test_two_drivers_of_one_sweep(tmp_path):
    """Each run is done once, by one of them; neither calls the other's a failure."""
    command = [
        sys.executable, "-m", "byzshield_exp", "-m", *SHORT, "steps=20", "seed=range(4)",
        f"output_dir={tmp_path}",
    ]  # fmt: skip
    drivers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [driver.communicate(timeout=250)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    found = states(tmp_path)
    assert len(found) == 4
    assert {(status["state"], status["attempts"]) for status in found.values()} == {("done", 1)}
    assert {row["state"] for row in manifest(tmp_path).values()} == {"done"}


POINTS = ("approach=mols,detox,baseline", "attack=alie", "q=2,3")


def in_the_middle(folder):
    """Whether a run has a checkpoint and no result yet."""
    started = {path.parents[1].name for path in folder.glob("*/checkpoints/step_*3.pt")}
    return started - hashes(folder).keys()


def sweep_of_6(folder, *more):
    return [
        sys.executable, "-m", "byzshield_exp", "-m", *SHORT, *POINTS, "steps=60",
        "checkpoint_every=3", f"output_dir={folder}", *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_whose_driver_is_killed_twice(tmp_path):
    """The driver is killed twice in the middle, and again before it has begun."""
    undisturbed = subprocess.run(
        sweep_of_6(tmp_path / "a"), capture_output=True, text=True, timeout=250
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert len(hashes(tmp_path / "a")) == 6
    folder, done = tmp_path / "b", 0
    for share in (0.2, 0.6):
        driver = subprocess.Popen(
            sweep_of_6(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while (done := len(hashes(folder))) < 6 * share or not in_the_middle(folder):
            assert driver.poll() is None
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert done < 6
    last = subprocess.run(sweep_of_6(folder), capture_output=True, text=True, timeout=250)
    assert last.returncode == 0, last.stderr
    assert hashes(folder) == hashes(tmp_path / "a")
    rows = manifest(folder)
    assert len(rows) == 6
    assert {row["state"] for row in rows.values()} == {"done"}
    assert 1 <= sum(row["attempts"] == "2" for row in rows.values()) <= 2
    again = subprocess.run(sweep_of_6(folder), capture_output=True, text=True, timeout=250)
    told = said(again.stdout)
    assert (told[0], told[-1]) == (f"sweep: 6 runs: 6 done; {folder}/sweep.csv", "6 of 6 done")


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_sweep_of_which_points_are_impossible_and_one_crashes(tmp_path):
    (tmp_path / "crashing.py").write_text(CRASHING)
    (tmp_path / "conf" / "attack").mkdir(parents=True)
    (tmp_path / "conf" / "attack" / "crashing.yaml").write_text(
        "_target_: crashing.forge\nhow: raise\n"
    )
    points = (
        "-m", *SHORT, "approach=baseline", "aggregator=median,bulyan", "attack=alie,crashing",
        "q=0,4", "on_invalid=skip",
    )  # fmt: skip
    command = [
        sys.executable, "-m", "byzshield_exp", "--config-dir", str(tmp_path / "conf"), *points,
        f"output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    environment = {**os.environ, **modules_in(tmp_path)}

    def start():
        return subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)

    first = start()
    assert first.returncode == 1, first.stderr
    table = (tmp_path / "out" / "sweep.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == 8
    for row in rows:
        is_impossible = row["aggregator"] == "bulyan" and row["q"] == "4"
        crashes = row["attack"] == "crashing" and row["q"] == "4"
        state = "invalid" if is_impossible else "failed" if crashes else "done"
        assert row["state"] == state, row
        assert bool(row["test_accuracy"]) == (state == "done")
    second = start()
    assert second.returncode == 1
    assert "sweep: 8 runs: " in second.stdout
    for part in ("5 done", "1 retry", "2 invalid"):
        assert part in second.stdout
    after = manifest(tmp_path / "out")
    assert {row["attempts"] for row in after.values() if row["state"] == "done"} == {"1"}
    assert {row["attempts"] for row in after.values() if row["state"] == "failed"} == {"2"}


@pytest.mark.thorough
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("early", "runs"),
    [
        (True, 1),
        (False, 2),
        pytest.param(True, 2, marks=pytest.mark.thorough),
        pytest.param(False, 1, marks=pytest.mark.thorough),
    ],
)
def test_ctrl_c_also_twice_and_early_stops_a_sweep_in_order(tmp_path, runs, early):
    command = [
        sys.executable, "-m", "byzshield_exp", "-m", *SMALL, "steps=3000", "seed=range(12)",
        "checkpoint_every=100000", f"hydra.launcher.runs={runs}", f"output_dir={tmp_path}",
    ]  # fmt: skip
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    begun = "*/status.json" if early else "*/metrics.jsonl"
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob(begun)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    for _ in range(3):
        os.killpg(driver.pid, signal.SIGINT)
        time.sleep(0.3)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    last = err.splitlines()[-1]
    assert re.fullmatch(r"\S+ (stopped by Ctrl-C|interrupted); the same command resumes", last)
    assert "Traceback" not in err
    assert re.match(r"\d+ of 12 done", out.splitlines()[-1]), out
    ended = [status["state"] for status in states(tmp_path).values()]
    assert 1 <= len(ended) <= runs + 1
    assert "running" not in ended
    assert "failed" not in ended
