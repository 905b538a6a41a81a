"""Sweeps on a real Slurm with accounting and two nodes, on this machine (``make test-slurm``)."""

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from callback_notes import install, noted
from running import SMALL, modules_in, run_program

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch", "sacct")
MISSING = [name for name in PROGRAMS if not shutil.which(name, path=f"/usr/sbin:{os.defpath}")]

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's programs need root"),
    pytest.mark.timeout(600),
]

SLURM = ("hydra/launcher=byzshield_slurm", "hydra.launcher.cpus_per_task=1")
TWO_NODES = (*SLURM, "hydra.launcher.nodes=2", "cluster=processes", "cluster.num_processes=4")
LONG = ("steps=1000000", "checkpoint_every=20", "eval_every=1000000")

FAILING = """
def forge(knowledge, when: int = 3, z: float | None = None):
    if knowledge.step == when:
        raise ArithmeticError("a rule of the user's own broke")
    return knowledge.own_rows()
"""


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    script = str(Path(__file__).parents[1] / "helpers" / "slurm_up.sh")
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    up = subprocess.run(["bash", script, str(folder)], capture_output=True, text=True, timeout=240)
    assert up.returncode == 0, up.stdout + up.stderr
    yield folder
    subprocess.run(["scancel", "--me"], check=False)
    time.sleep(2)
    subprocess.run(["bash", script, "--down", str(folder)], check=False)
    patch.undo()


def sweep(folder, *overrides, timeout=400, **environment):
    return run_program(
        "-m", *SMALL, f"output_dir={folder}", *overrides, timeout=timeout, **environment
    )


def start(folder, *overrides):
    return subprocess.Popen(
        [sys.executable, "-m", "byzshield_exp", "-m", *SMALL, f"output_dir={folder}", *overrides],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def hashes(folder):
    return sorted(
        json.loads(path.read_text())["parameters_sha256"] for path in folder.glob("*/summary.json")
    )


def rows(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def status(folder):
    (path,) = folder.glob("*/status.json")
    return json.loads(path.read_text())


def job_of(folder):
    (path,) = folder.glob("*/slurm.json")
    return json.loads(path.read_text())["job"]


def sacct(folder):
    """The states of the jobs that belong to a folder's runs; accounting is a little late."""
    ids = [json.loads(path.read_text())["job"] for path in folder.glob("*/slurm.json")]
    command = ["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(ids)]
    for _ in range(60):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = [line.partition("|")[2].split()[0] for line in said.splitlines()]
        if len(found) == len(ids) and not set(found) & {"RUNNING", "PENDING", "COMPLETING"}:
            break
        time.sleep(0.5)
    return set(found)


def squeue(form):
    said = subprocess.run(["squeue", "--me", "-h", "-o", form], capture_output=True, text=True)
    return said.stdout


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def has_begun(folder):
    return lambda: bool(list(folder.glob("*/checkpoints/step_*.pt")))


def finish(folder, *overrides):
    """Let the long run of a folder end soon, where it is."""
    done = max(int(path.stem[5:]) for path in folder.glob("*/checkpoints/step_*.pt"))
    return sweep(folder, *overrides, f"steps={done + 40}", "checkpoint_every=20"), done + 40


def test_arrays_on_one_node_and_on_two_have_the_bits_of_one_process(tmp_path):
    here = sweep(tmp_path / "here", "q=1,2", "seed=0,1")
    assert here.returncode == 0, here.stderr
    one = sweep(tmp_path / "one", "q=1,2", "seed=0,1", *SLURM)
    assert one.returncode == 0, one.stderr
    assert "slurm: 4 jobs: " in one.stdout
    two = sweep(tmp_path / "two", "q=1,2", "seed=0,1", *TWO_NODES)
    assert two.returncode == 0, two.stderr
    assert hashes(tmp_path / "here") == hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert len(set(hashes(tmp_path / "two"))) == 4
    assert sacct(tmp_path / "two") == {"COMPLETED"}
    again = sweep(tmp_path / "two", "q=1,2", "seed=0,1", *TWO_NODES)
    assert f"sweep: 4 runs: 4 done; {tmp_path}/two/sweep.csv" in again.stdout
    assert again.stdout.splitlines()[-1] == "4 of 4 done"


def test_a_cancelled_run_is_resumed_by_the_same_command(tmp_path):
    driver = start(tmp_path, *LONG, *TWO_NODES)
    wait_until(has_begun(tmp_path))
    subprocess.run(["scancel", job_of(tmp_path)], check=True)
    said, _ = driver.communicate(timeout=200)
    assert driver.returncode == 1, said
    assert status(tmp_path)["state"] == "stopped"
    assert "in a checkpoint, the same command resumes" in said
    assert sacct(tmp_path) == {"CANCELLED"}
    resumed, steps = finish(tmp_path, *TWO_NODES)
    assert resumed.returncode == 0, resumed.stderr
    assert "1 resume" in resumed.stdout
    sweep(tmp_path / "here", f"steps={steps}")
    assert hashes(tmp_path) == hashes(tmp_path / "here")
    assert status(tmp_path)["attempts"] == 2


def test_a_run_that_is_out_of_time_is_queued_again_and_resumes(tmp_path):
    """Slurm says so by USR2 before the end of the time; submitit has the job queued again."""
    short = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=50")
    driver = start(tmp_path, *LONG, *TWO_NODES, *short)
    goes_on_in_the_same_job(tmp_path, driver, within=180)


@pytest.mark.parametrize("partition", ["debug", "warned"])
def test_a_preempted_run_is_queued_again_and_resumes(tmp_path, partition):
    """At once, or in a partition with a GraceTime."""
    driver = start(tmp_path, *LONG, *TWO_NODES, f"hydra.launcher.partition={partition}")
    wait_until(has_begun(tmp_path))
    urgent = ["sbatch", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap=sleep 1"]
    subprocess.run(urgent, check=True)
    goes_on_in_the_same_job(tmp_path, driver)


def goes_on_in_the_same_job(folder, driver, within=60):
    wait_until(has_begun(folder))
    known = job_of(folder)
    wait_until(lambda: "BeginTime" in squeue("%r"), within)  # Slurm has it wait for two minutes
    subprocess.run(["scontrol", "update", f"JobId={known}", "StartTime=now"], check=True)
    wait_until(lambda: status(folder)["attempts"] == 2)
    assert job_of(folder) == known
    assert driver.poll() is None  # it waits on
    driver.send_signal(signal.SIGINT)
    said, _ = driver.communicate(timeout=60)
    assert "the jobs stay in the queue" in said
    subprocess.run(["scancel", known], check=True)
    wait_until(lambda: status(folder)["state"] == "stopped")
    wait_until(lambda: not squeue("%i"))  # a cancelled job does not come again
    again, steps = finish(folder, *TWO_NODES)
    assert again.returncode == 0, again.stderr
    sweep(folder / "here", f"steps={steps}")
    assert hashes(folder) == hashes(folder / "here")


@pytest.mark.parametrize("where", [SLURM, TWO_NODES], ids=["one", "two"])
def test_a_failed_run_is_a_failed_job(tmp_path, where):
    (tmp_path / "failing.py").write_text(FAILING)
    done = sweep(
        tmp_path / "out", "attack._target_=failing.forge", "+attack.when=2,100", *where,
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1
    assert "of 2 runs 1 failed" in done.stderr
    assert [row["state"] for row in rows(tmp_path / "out")] == ["failed", "done"]
    assert "a rule of the user's own broke" in rows(tmp_path / "out")[0]["error"]
    assert sacct(tmp_path / "out") == {"FAILED", "COMPLETED"}


def test_a_killed_driver_finds_its_jobs_and_no_secret_is_seen(tmp_path):
    driver = start(tmp_path, *LONG, *TWO_NODES)
    wait_until(has_begun(tmp_path))
    known = job_of(tmp_path)
    driver.kill()
    driver.communicate()

    secrets = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            entries = path.read_bytes().split(b"\0")
        except OSError:
            continue
        secrets |= {one.partition(b"=")[2] for one in entries if one.startswith(b"BYZSHIELD_SECRE")}
    assert secrets
    seen = subprocess.run(["ps", "-ef"], capture_output=True, check=True).stdout
    seen += subprocess.run(["scontrol", "show", "job", "-dd"], capture_output=True).stdout
    for path in tmp_path.rglob("*"):
        seen += path.read_bytes() if path.is_file() else b""
    for secret in secrets:
        assert len(secret) == 64
        assert secret not in seen

    second = start(tmp_path, *LONG, *TWO_NODES)
    line = next(line for line in second.stdout if line.startswith("slurm: "))
    assert f"of which Slurm had 1 already: {known.partition('_')[0]}" in line
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)
    subprocess.run(["scancel", known], check=True)
    wait_until(lambda: status(tmp_path)["state"] == "stopped")


def test_jobs_of_a_driver_that_was_killed_while_it_submitted_them_touch_nothing(tmp_path):
    """They wait a minute for their files, which submitit moves there after sbatch, and end."""
    sbatch = tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"\nkill -9 $PPID\n')
    sbatch.chmod(0o755)
    points = ("q=1,2", *SLURM)
    killed = sweep(tmp_path / "out", *points, PATH=f"{sbatch.parent}:{os.environ['PATH']}")
    assert killed.returncode == -signal.SIGKILL
    assert len(squeue("%i")) > 0
    again = sweep(tmp_path / "out", *points)
    assert again.returncode == 0, again.stderr
    assert [row["attempts"] for row in rows(tmp_path / "out")] == ["1", "1"]
    assert [row["state"] for row in rows(tmp_path / "out")] == ["done", "done"]
    wait_until(lambda: not squeue("%i"))
    found = [json.loads(path.read_text()) for path in tmp_path.glob("out/*/status.json")]
    assert [one["state"] for one in found] == ["done", "done"]


def test_jobs_that_nobody_waits_for(tmp_path):
    options = ("q=1,2", *SLURM, "hydra.launcher.wait=false")
    done = sweep(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert "sweep: 2 runs wait or go on elsewhere; the same command looks again" in done.stdout
    wait_until(lambda: len(hashes(tmp_path)) == 2)
    again = sweep(tmp_path, *options)
    assert "2 done" in again.stdout
    assert {row["state"] for row in rows(tmp_path)} == {"done"}


def test_each_job_gets_the_cores_of_its_threads(tmp_path):
    done = sweep(tmp_path, "threads=1,2", "hydra/launcher=byzshield_slurm")
    assert done.returncode == 0, done.stderr
    ids = {
        json.loads(path.with_name("job.json").read_text())["config"]["threads"]: json.loads(
            path.read_text()
        )["job"]
        for path in tmp_path.glob("*/slurm.json")
    }
    for threads, known in ids.items():
        command = ["sacct", "-X", "-n", "-P", "-o", "NCPUS", "-j", known]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.split() == [str(threads)]
    assert sorted(ids) == [1, 2]


def test_a_run_that_is_no_job_is_left_to_its_process(tmp_path):
    sweep(tmp_path, "q=1,2")
    held = min(tmp_path.glob("*/status.json")).parent
    before = (held / "status.json").read_text()
    with (held / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = sweep(tmp_path, "q=1,2", "steps=8", *SLURM)
    assert done.returncode == 0, done.stderr
    assert "slurm: 1 jobs: " in done.stdout
    assert "sweep: 1 runs wait or go on elsewhere" in done.stdout
    assert (held / "status.json").read_text() == before


def test_what_slurm_refuses_is_one_line(tmp_path):
    done = sweep(tmp_path, "q=1,2", *SLURM, "hydra.launcher.partition=nope")
    assert done.returncode == 2
    assert "hydra/launcher=byzshield_slurm" in done.stderr.splitlines()[-1]
    assert "plan: 2 runs: 2 new" in sweep(tmp_path, "q=1,2", "plan=true").stdout
    for bad, said in {
        "nodes=2": "hydra.launcher.nodes=2 must be at most cluster.num_processes=1",
        "nodes=0": "hydra.launcher.nodes=0 must be at least 1",
        "timeout_min=3": "timeout_min=3 must exceed signal_delay_s=120 s by more than a minute",
    }.items():
        done = sweep(tmp_path, "q=1,2", *SLURM, f"hydra.launcher.{bad}")
        assert done.returncode == 2
        assert said in done.stderr


@pytest.mark.parametrize("where", [SLURM, TWO_NODES, ("hydra/launcher=submitit_slurm",)])
def test_callbacks_hear_of_a_run_in_its_job(tmp_path, where):
    """Also with the launcher of Hydra's own plugin."""
    if "submitit" in where[0]:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
        where = (*where, "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=5")
    (tmp_path / "failing.py").write_text(FAILING)
    done = sweep(
        tmp_path / "out", *where, "attack._target_=failing.forge", "+attack.when=3,99",
        install(tmp_path), **modules_in(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    notes = noted(tmp_path)
    assert sorted(note["what"] for note in notes) == ["end", "end", "start", "start"]
    ends = {note["status"]: note for note in notes if note["what"] == "end"}
    assert "a rule of the user's own broke" in ends["FAILED"]["value"]
    assert 0 <= float(ends["COMPLETED"]["value"]) <= 1
    assert "when=99" in ends["COMPLETED"]["folder"]
    assert ends["COMPLETED"]["pid"] != ends["FAILED"]["pid"], "each in its own job"
    assert [row["state"] for row in rows(tmp_path / "out")] == ["failed", "done"]
