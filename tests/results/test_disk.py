"""Runs on a disk that is full, or whose folder goes away: they go on, and nothing is lost."""

import contextlib
import os
import shutil
import subprocess
import sys
import time

import pytest
from running import SMALL, metrics_of, modules_in, run_program, summary_of

from byzshield_exp.results import saving

# An attack, as it is called at every step, that also disturbs the disk: FAULT=kind:from:until.
FAULTS = """
import os
import resource
import shutil
from pathlib import Path


def forge(knowledge, z: float | None = None):
    kind, begin, end = os.environ.get("FAULT", "none:0:0").split(":")
    (run,) = [path for path in Path(os.environ["OUT"]).iterdir() if path.name != "ballast"]
    place = run / "checkpoints" if kind == "checkpoints" else run
    if knowledge.step == int(begin):
        if kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1200, resource.RLIM_INFINITY))
        elif kind == "full":
            with (run.parent / "ballast").open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(512)):
                        pass
                except OSError:
                    pass
        elif kind in ("checkpoints", "run"):
            shutil.rmtree(place, ignore_errors=True)
            place.write_text("in the way")
        elif kind == "gone":
            shutil.rmtree(run)
    if knowledge.step == int(end):
        if kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        elif kind == "full":
            (run.parent / "ballast").unlink()
        elif kind in ("checkpoints", "run"):
            place.unlink()
    return knowledge.own_rows()
"""
OPTIONS = (
    *SMALL, "steps=40", "eval_every=20", "checkpoint_every=10", "keep=3", "worker_momentum=0.5",
    "attack._target_=faults.forge",
)  # fmt: skip


@pytest.fixture
def disturbed(cli, tmp_path, monkeypatch):
    """Do a run in this process: ``disturbed(name, fault, *overrides) -> (exit code, err)``."""
    (tmp_path / "faults.py").write_text(FAULTS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(name, fault="none:0:0", *overrides):
        monkeypatch.setenv("FAULT", fault)
        monkeypatch.setenv("OUT", str(tmp_path / name))
        code, _, err = cli(*OPTIONS, f"output_dir={tmp_path / name}", *overrides)
        return code, err

    return call


def steps_of(folder):
    return [record["step"] for record in metrics_of(folder)]


def scalars_of(folder, tag="loss/train"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = folder.glob("*/events.out.tfevents.*")
    return [event.step for event in EventAccumulator(str(path.parent)).Reload().Scalars(tag)]


def partials_of(folder):
    return list(folder.glob("**/*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["checkpoints", "run"])
def test_a_folder_that_becomes_a_file_is_waited_for(disturbed, tmp_path, fault):
    assert disturbed("whole")[0] == 0
    code, err = disturbed("out", f"{fault}:18:25")
    assert code == 0, err
    whole, ours = summary_of(tmp_path / "whole"), summary_of(tmp_path / "out")
    assert ours["parameters_sha256"] == whole["parameters_sha256"]
    assert steps_of(tmp_path / "out") == list(range(1, 41))
    assert scalars_of(tmp_path / "out") == list(range(1, 41))
    assert err.count("the checkpoint in") == 2  # it begins and ends
    assert "step 20: the checkpoint in" in err
    names = [path.name for path in tmp_path.glob("out/*/checkpoints/*")]
    assert any("step_00000025.pt" <= name <= "step_00000029.pt" for name in names)
    assert len(err.splitlines()) == {"checkpoints": 2, "run": 6}[fault], err
    assert not partials_of(tmp_path)


@pytest.mark.slow
def test_a_folder_that_was_deleted_is_made_again(disturbed, tmp_path):
    code, err = disturbed("out", "gone:15:0")
    assert code == 0, err
    assert err == ""
    assert steps_of(tmp_path / "out") == list(range(1, 41))
    assert scalars_of(tmp_path / "out") == list(range(1, 41))
    names = sorted(path.name for path in tmp_path.glob("out/*/checkpoints/*"))
    assert names == ["step_00000020.pt", "step_00000030.pt", "step_00000040.pt"]


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_in_a_line(disturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "PATIENCE_S", 0.3)
    code, err = disturbed("out", "checkpoints:15:1000")
    assert code == 1
    assert len(err.splitlines()) == 2
    (path,) = tmp_path.glob("out/*/checkpoints")
    assert f"byzshield_exp: the checkpoint in {path} could not be written for 0.3 s" in err
    path.unlink()
    code, err = disturbed("out")
    assert code == 0, err
    assert disturbed("whole")[0] == 0
    whole, ours = summary_of(tmp_path / "whole"), summary_of(tmp_path / "out")
    assert ours["parameters_sha256"] == whole["parameters_sha256"]
    assert steps_of(tmp_path / "out") == list(range(1, 41))


@pytest.mark.slow
def test_a_profile_that_cannot_be_written_is_a_line(disturbed, tmp_path):
    code, err = disturbed("out", "run:3:6", "profile=true")
    assert code == 0, err
    assert "warning: the profile could not be written" in err
    assert steps_of(tmp_path / "out") == list(range(1, 41))


def program(folder, fault, *overrides):
    (folder.parent / "faults.py").write_text(FAULTS)
    return run_program(
        *OPTIONS, f"output_dir={folder}", *overrides, OUT=str(folder), FAULT=fault,
        **modules_in(folder.parent),
    )  # fmt: skip


def check(folder, done):
    assert done.returncode == 0, done.stderr
    assert steps_of(folder) == list(range(1, 41))
    assert scalars_of(folder) == list(range(1, 41))
    assert not partials_of(folder)
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    for what in ("the checkpoint in", "metrics.jsonl", "TensorBoard events"):
        assert [what in line for line in lines].count(True) == 2, done.stderr
    assert len(lines) == 6


@pytest.mark.slow
def test_writes_that_fail_in_the_middle_of_a_record_leave_no_gap(tmp_path):
    """RLIMIT_FSIZE: the limit lies within a record, so a part of it is written first."""
    check(tmp_path / "out", program(tmp_path / "out", "limit:18:25"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield folder
    for _ in range(50):
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            break
        time.sleep(0.1)


@pytest.mark.slow
def test_a_full_disk_is_waited_for(small_disk):
    check(small_disk, program(small_disk, "full:18:34"))


@pytest.mark.slow
def test_a_run_that_is_killed_on_a_full_disk_resumes_without_a_gap(small_disk, tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    command = [sys.executable, "-m", "byzshield_exp", *OPTIONS, f"output_dir={small_disk}"]
    environment = {**os.environ, "OUT": str(small_disk), **modules_in(tmp_path)}
    process = subprocess.Popen(
        [*command, "steps=100000"], env={**environment, "FAULT": "full:25:100000"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if "the checkpoint in" in line:
            break
    process.kill()
    process.communicate()
    (small_disk / "ballast").unlink()
    done = program(small_disk, "none:0:0", "steps=60")
    assert done.returncode == 0, done.stderr
    assert steps_of(small_disk) == list(range(1, 61))
    whole = program(tmp_path / "whole", "none:0:0", "steps=60")
    assert whole.returncode == 0
    ours, theirs = summary_of(small_disk), summary_of(tmp_path / "whole")
    assert ours["parameters_sha256"] == theirs["parameters_sha256"]


@pytest.mark.slow
def test_a_log_on_a_full_disk_ends_no_run(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    command = [sys.executable, "-m", "byzshield_exp", *SMALL, f"output_dir={tmp_path}"]
    with open("/dev/full", "w") as full, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, stdout=full, stderr=full, timeout=60)
    assert summary_of(tmp_path)["steps"] == 4
