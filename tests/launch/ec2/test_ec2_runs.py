"""Runs of a sweep on gangs that are folders of this machine; EC2 is moto."""

import csv
import errno
import json
import logging
import multiprocessing
import os
import signal
import stat
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from ec2_cloud import SECRET, error_of
from running import SMALL, run_program

from byzshield_exp.errors import ConfigError, RunError, Stopped
from byzshield_exp.launch.ec2 import commands, fleet, reach, resources, runs
from byzshield_exp.launch.ec2.cloud import Cloud, NoCapacity, connect
from byzshield_exp.launch.ec2.hosts import Unreachable
from byzshield_exp.launch.ec2.local import LocalTransport
from byzshield_exp.launch.ec2.options import options_of
from byzshield_exp.launch.ec2.runs import jobs_of
from byzshield_exp.launch.ec2.state import State, store_of
from hydra_plugins.byzshield_ec2_launcher import EC2Launcher

pytestmark = pytest.mark.slow  # together they take minutes

# Stands for Python with torchrun: its first node does what the job says.
PROGRAM = """\
#!{python}
import json, os, pathlib, signal, sys, time
arguments = sys.argv[1:]
if "prepare" in arguments:
    print("prepares", *arguments[2:])
    trouble = pathlib.Path(sys.argv[0]).with_name("trouble")
    left = int(trouble.read_text()) if trouble.exists() else 0
    trouble.write_text(str(max(0, left - 1)))
    sys.exit(left > 0)
node = int(arguments[arguments.index("--node-rank") + 1])
job = json.loads(pathlib.Path(arguments[-1]).read_text())
does = job["config"]["does"]
folder = pathlib.Path(job["config"]["output_dir"]) / job["name"]
if node == 0:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starts").open("a") as file:
        file.write(" ".join(arguments) + "\\n")
def say(**status):
    if node == 0:
        (folder / "status.json").write_text(json.dumps(status))
def stop(*_):
    say(state="stopped")
    sys.exit(1)  # as torchrun does for any rank that fails
signal.signal(signal.SIGTERM, stop)
say(state="running")
first = len((folder / "starts").read_text().splitlines()) == 1 if node == 0 else False
if does == "wait" or (does == "wait once" and (first or node)):
    until = time.time() + (60 if does == "wait" or first else 8)
    while time.time() < until and not (folder / "finish").exists():
        time.sleep(0.05)
if does == "refuse":  # as a job that finds another's checkpoint
    say(state="done")
    print("holds another run")
    sys.exit(1)
if does == "fail":
    say(state="failed", error="the loss is a cat")
    sys.exit(1)
say(state="done")
"""


@pytest.fixture
def ready(aws, tmp_path, monkeypatch):
    """Everything quick, and the program that stands for Python on the hosts."""
    shared = connect("us-east-1")
    monkeypatch.setattr(commands, "connect", lambda region: shared)
    monkeypatch.setattr(resources, "_SETTLE_S", 0.0)
    monkeypatch.setattr(fleet, "WATCH_S", 0.2)
    program = tmp_path / "python"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(reach, "LOCAL_PYTHON", str(program))
    return aws


@pytest.fixture
def jobs(tmp_path):
    """``jobs(*what they do) -> paths`` of job files."""

    def make(*does: str, processes: int = 5, dataset: str = "digits") -> list[Path]:
        paths = []
        for number, one in enumerate(does):
            config = {
                "output_dir": str(tmp_path / "outputs"),
                "cluster": {"num_processes": processes},
                "dataset": {"root": "here"},
                "choices": {"dataset": dataset},
                "does": one,
            }
            path = tmp_path / "outputs" / f"run{number}" / "job.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"name": f"run{number}", "config": config}))
            paths.append(path)
        return paths

    return make


def options(tmp_path, **more):
    given = {"transport": "local", "usd_per_hour": 0.5, "dry_run": False, "retry_s": 0.0}
    return options_of({**given, "output_dir": str(tmp_path / "outputs"), **more})


def starts(tmp_path, number: int) -> list[str]:
    return (tmp_path / f"outputs/run{number}/starts").read_text().splitlines()


def state(tmp_path):
    return store_of(str(tmp_path / "outputs"), "byzshield").load()


def phases(done) -> list[str]:
    return [job.phase for job in done]


def test_runs_go_over_one_gang_and_come_back(ready, jobs, tmp_path):
    done = commands.sweep(options(tmp_path), jobs_of(jobs("well", "fail", "well")))
    assert phases(done) == ["done", "failed", "done"]
    assert done[1].error == "the loss is a cat"
    assert len(state(tmp_path).gangs) == 1
    for number in (0, 2):
        (line,) = starts(tmp_path, number)
        assert "--nnodes 3 --node-rank 0 --nproc-per-node 1" in line
        status = json.loads((tmp_path / f"outputs/run{number}/status.json").read_text())
        assert status == {"state": "done"}
    assert not ready.living()
    assert state(tmp_path).phase == "down"


@pytest.mark.slow
def test_each_run_may_have_its_own_gang(ready, jobs, tmp_path):
    done = commands.sweep(options(tmp_path, reuse=False), jobs_of(jobs("well", "well")))
    assert phases(done) == ["done", "done"]
    gangs = state(tmp_path).gangs
    assert len(gangs) == 2
    assert not {*gangs[0].instances} & {*gangs[1].instances}
    assert len({part.token for gang in gangs for part in gang.parts}) == 4


@pytest.mark.slow
def test_gangs_side_by_side_share_the_runs(ready, jobs, tmp_path):
    done = commands.sweep(options(tmp_path, gangs=2), jobs_of(jobs(*["well"] * 5)))
    assert phases(done) == ["done"] * 5
    assert len(state(tmp_path).gangs) == 2
    assert not ready.living()


def test_data_that_can_be_fetched_are_prepared_before(ready, jobs, tmp_path):
    (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("well", dataset="cifar10")))
    assert job.phase == "done"
    (sent,) = (tmp_path / "outputs/ec2/byzshield/hosts/jobs").glob("*.json")
    config = json.loads(sent.read_text())["config"]
    assert config["dataset"]["root"] == str(tmp_path / "outputs/ec2/byzshield/hosts/data")


def test_a_site_that_is_down_for_a_moment_costs_nothing(ready, jobs, tmp_path):
    (tmp_path / "trouble").write_text("1")
    (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("well", dataset="cifar10")))
    assert (job.phase, job.attempts) == ("done", 1)


def test_a_site_that_stays_down_costs_gangs_and_ends_no_other(ready, jobs, tmp_path):
    (tmp_path / "trouble").write_text("2")
    (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("well", dataset="cifar10")))
    assert (job.phase, job.attempts) == ("done", 2)


def test_a_job_that_is_refused_is_not_done(ready, jobs, tmp_path):
    """Whatever an older ``status.json`` says."""
    (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("refuse")))
    assert (job.phase, job.error) == ("failed", "holds another run")


class Flaky(LocalTransport):
    """Its ``fetch`` fails so many times."""

    failures = 0
    error: type[RunError] = Unreachable

    def fetch(self, host, source, target):
        if type(self).failures:
            type(self).failures -= 1
            raise type(self).error("the connection is lost")
        super().fetch(host, source, target)


@pytest.fixture
def flaky(monkeypatch):
    """``flaky(failures, error)``: transports fail so often at ``fetch``."""

    def make(failures: int, error: type[RunError] = Unreachable) -> None:
        monkeypatch.setattr(Flaky, "failures", failures)
        monkeypatch.setattr(Flaky, "error", error)
        monkeypatch.setattr(reach, "LocalTransport", Flaky)

    return make


@pytest.mark.parametrize(("failures", "attempts"), [(1, 1), (3, 2)])
def test_results_are_asked_for_again(ready, jobs, tmp_path, flaky, failures, attempts):
    flaky(failures)
    (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("well")))
    assert (job.phase, job.attempts) == ("done", attempts)


def test_a_run_without_its_results_is_not_done(ready, jobs, tmp_path, flaky):
    flaky(3, RunError)
    (path,) = jobs("well")
    (path.parent / "status.json").write_text('{"state": "done"}')
    (job,) = commands.sweep(options(tmp_path), jobs_of([path]))
    assert job.phase == "failed"
    assert "its results did not come back: the connection is lost" in job.error


def test_results_come_to_where_the_job_lies(ready, jobs, tmp_path):
    """Whatever its output_dir is called: ``~`` or a relative one."""
    (path,) = jobs("well")
    content = json.loads(path.read_text())
    content["config"]["output_dir"] = "~/elsewhere"
    path.write_text(json.dumps(content))
    (job,) = commands.sweep(options(tmp_path), jobs_of([path]))
    assert job.phase == "done"
    assert json.loads((path.parent / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("is_shared", [False, True])
def test_hosts_get_the_checkpoints(ready, jobs, tmp_path, monkeypatch, is_shared):
    place_of = reach.place_of
    monkeypatch.setattr(runs, "place_of", lambda it: replace(place_of(it), is_shared=is_shared))
    (path,) = jobs("well")
    (path.parent / "checkpoints").mkdir()
    (path.parent / "checkpoints/step-7.pt").write_text("weights")
    (path.parent / "metrics.jsonl").write_text("{}")
    (path.parent / "status.json").write_text('{"state": "failed"}')
    (job,) = commands.sweep(options(tmp_path), jobs_of([path]))
    assert job.phase == "done"
    hosts = tmp_path / "outputs/ec2/byzshield/hosts"
    (there,) = hosts.glob("outputs/*/run0")
    assert (there / "checkpoints/step-7.pt").read_text() == "weights"
    assert (there / "metrics.jsonl").exists()
    assert not (there / "job.json").exists()
    assert not [*hosts.glob("jobs/*.tar")]


def test_a_gang_that_does_not_fit_the_runs_is_not_rented(ready, jobs, tmp_path):
    with pytest.raises(ConfigError, match="num_processes=4 of run0: a gang has 5 processes"):
        commands.sweep(options(tmp_path), jobs_of(jobs("well", processes=4)))
    assert not ready.calls


def test_a_dry_run_does_nothing(ready, jobs, tmp_path, capsys):
    before = ready.inventory()
    commands.sweep(options(tmp_path, dry_run=True), jobs_of(jobs("well")))
    assert ready.inventory() == before
    assert "nothing was created; dry_run=false creates it" in capsys.readouterr().out
    assert not (tmp_path / "outputs/ec2").exists()


def when_it_runs(tmp_path, number: int, act) -> threading.Thread:
    """Do something once a run has begun on its host."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        folder = tmp_path / "outputs/ec2/byzshield/hosts/outputs"
        while time.monotonic() < deadline and not [*folder.glob(f"*/run{number}/status.json")]:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_reclaimed_instance_costs_a_gang_and_no_run(ready, jobs, tmp_path, capsys):
    victims = []

    def reclaim() -> None:
        victims.extend(ready.living())
        ready.client("ec2").terminate_instances(InstanceIds=[victims[0]["InstanceId"]])

    thread = when_it_runs(tmp_path, 0, reclaim)
    (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("wait once")))
    thread.join()
    assert (job.phase, job.attempts) == ("done", 2)
    first, second = state(tmp_path).gangs
    assert {one["InstanceId"] for one in victims} == {*first.instances}
    assert not {*first.instances} & {*second.instances}
    assert not {part.token for part in first.parts} & {part.token for part in second.parts}
    assert f"{victims[0]['InstanceId']} is " in capsys.readouterr().err
    assert len(starts(tmp_path, 0)) == 2
    assert not ready.living()


def test_a_run_loses_so_many_gangs_and_no_more(ready, jobs, tmp_path):
    def reclaim(call) -> None:
        if call.action == "RunInstances" and call.creates and call.fields["MinCount"] == "2":
            names = [one["InstanceId"] for one in ready.living()]
            ready.client("ec2").terminate_instances(InstanceIds=names)

    ready.after = reclaim
    done = commands.sweep(options(tmp_path, max_attempts=2), jobs_of(jobs("well", "well")))
    assert [(job.phase, job.attempts) for job in done] == [("failed", 2), ("failed", 2)]
    assert "is terminated" in done[0].error
    assert len(state(tmp_path).gangs) == 4
    assert not ready.living()


def test_without_capacity_a_sweep_ends_after_some_attempts(ready, jobs, tmp_path):
    ready.before = lambda call: (
        error_of("InsufficientInstanceCapacity", 500)
        if call.action == "RunInstances" and call.creates
        else None
    )
    with pytest.raises(NoCapacity, match="InsufficientInstanceCapacity"):
        commands.sweep(options(tmp_path, max_attempts=2), jobs_of(jobs("well", "well")))
    assert phases(state(tmp_path).jobs) == ["waiting", "waiting"]
    assert len(state(tmp_path).gangs) == 2
    tokens = [
        call.fields["ClientToken"]
        for call in ready.calls
        if call.creates and call.fields.get("ClientToken")
    ]
    assert len({*tokens}) == 2
    assert not ready.living()


@pytest.mark.parametrize("limit", ["max_usd", "max_hours"])
def test_a_limit_ends_everything(ready, jobs, tmp_path, limit, monkeypatch):
    """The one that is reached is due to lost gangs, or to time."""

    def pass_it() -> None:
        if limit == "max_usd":
            monkeypatch.setattr(State, "spent_usd", lambda self, now: 99.0)
        else:
            monkeypatch.setattr(State, "over", lambda self, now: over(self, now + 7200))

    over = State.over
    thread = when_it_runs(tmp_path, 0, pass_it)
    with pytest.raises(RunError, match=f"{limit}=.* is reached"):
        commands.sweep(options(tmp_path), jobs_of(jobs("wait", "well")))
    thread.join()
    assert not ready.living()
    assert json.loads((tmp_path / "outputs/run0/status.json").read_text()) == {"state": "stopped"}
    assert phases(state(tmp_path).jobs) == ["waiting", "waiting"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_sigterm_makes_a_checkpoint_and_ends_everything(ready, jobs, tmp_path, name):
    thread = when_it_runs(tmp_path, 0, lambda: os.kill(os.getpid(), getattr(signal, name)))
    with pytest.raises(Stopped, match=f"stopped by {name}"):
        commands.sweep(options(tmp_path), jobs_of(jobs("wait", "well")))
    thread.join()
    assert not ready.living()
    assert json.loads((tmp_path / "outputs/run0/status.json").read_text()) == {"state": "stopped"}


def test_a_signal_that_another_thread_gets_is_heard(ready, jobs, tmp_path):
    """The system may give it to any thread; only the main one can act on it."""
    thread = when_it_runs(tmp_path, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # here, and in threads from here on
    try:
        with pytest.raises(Stopped, match="stopped by SIGTERM"):
            commands.sweep(options(tmp_path), jobs_of(jobs("wait", "well")))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    thread.join()
    assert json.loads((tmp_path / "outputs/run0/status.json").read_text()) == {"state": "stopped"}


@pytest.mark.slow
def test_ctrl_c_ends_everything(ready, jobs, tmp_path):
    thread = when_it_runs(tmp_path, 0, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        commands.sweep(options(tmp_path), jobs_of(jobs("wait", "well")))
    thread.join()
    assert not ready.living()


def drive_apart(environment: dict[str, str], program: str, place: str, paths: list[str]) -> None:
    """In a process of its own: a sweep."""
    os.environ.update(environment)
    reach.LOCAL_PYTHON = program
    commands.sweep(options(Path(place)), jobs_of([Path(path) for path in paths]))


def kill_a_driver(cloud, tmp_path, paths: list[Path], number: int) -> None:
    """A driver of its own begins a sweep and is killed while a run goes on."""
    context = multiprocessing.get_context("forkserver")
    driver = context.Process(
        target=drive_apart,
        args=(
            cloud.environment(),
            reach.LOCAL_PYTHON,
            str(tmp_path),
            [str(path) for path in paths],
        ),
    )
    thread = when_it_runs(tmp_path, number, lambda: os.kill(driver.pid, signal.SIGKILL))
    driver.start()
    driver.join(60)
    thread.join()
    assert driver.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("how", ["resume", "again"])
def test_after_a_killed_driver_the_same_gang_goes_on(ready, jobs, tmp_path, how):
    paths = jobs("wait once", "well")
    kill_a_driver(ready, tmp_path, paths, 0)
    before = {one["InstanceId"] for one in ready.living()}
    assert len(before) == 3
    assert phases(state(tmp_path).jobs) == ["running", "waiting"]
    host_side = next((tmp_path / "outputs/ec2/byzshield/hosts/outputs").glob("*/run0"))
    threading.Timer(1.0, finish, [host_side]).start()
    if how == "resume":
        done = commands.resume(store_of(str(tmp_path / "outputs"), "byzshield"))
    else:
        done = commands.sweep(options(tmp_path), jobs_of(paths))
    assert phases(done) == ["done", "done"]
    assert len(starts(tmp_path, 0)) == 1
    assert {*state(tmp_path).gangs[0].instances} == before
    assert len(state(tmp_path).gangs) == 1
    assert not ready.living()


@pytest.mark.slow
def test_a_sweep_of_what_is_left_takes_up_its_own_run(ready, jobs, tmp_path):
    """Its place among the runs that are due is another one than it was."""
    paths = jobs("well", "wait once", "well")
    kill_a_driver(ready, tmp_path, paths, 1)
    assert phases(state(tmp_path).jobs) == ["done", "running", "waiting"]
    host_side = next((tmp_path / "outputs/ec2/byzshield/hosts/outputs").glob("*/run1"))
    threading.Timer(3.0, finish, [host_side]).start()
    done = commands.sweep(options(tmp_path), jobs_of(paths[1:]))
    assert phases(done) == ["done", "done"]
    assert [len(starts(tmp_path, number)) for number in range(3)] == [1, 1, 1]
    assert len(state(tmp_path).gangs) == 1


def test_a_run_that_comes_to_the_same_gang_again_is_begun_again(ready, jobs, tmp_path):
    commands.up(options(tmp_path))
    store = store_of(str(tmp_path / "outputs"), "byzshield")
    (path,) = jobs("fail")
    control = resources.Control(store.load(), store, commands.connect(None))
    for count in (1, 2):
        control.state.jobs = jobs_of([path])
        runs.do(control, control.state.gangs[0], control.state.jobs[0], threading.Event())
        assert len(starts(tmp_path, 0)) == count
        assert control.state.jobs[0].error == "the loss is a cat"


def host_side(tmp_path, number: int) -> Path:
    """A run's folder on its host."""
    return next((tmp_path / "outputs/ec2/byzshield/hosts/outputs").glob(f"*/run{number}"))


def finish(folder: Path) -> None:
    """Let the program that waits end well."""
    (folder / "finish").touch()


def test_a_fleet_whose_time_is_over_is_ended_first(ready, jobs, tmp_path, capsys):
    commands.up(options(tmp_path))
    store = store_of(str(tmp_path / "outputs"), "byzshield")
    old = store.load()
    old.deadline = time.time() - 1
    store.save(old)
    (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("well")))
    assert job.phase == "done"
    assert state(tmp_path).fleet != old.fleet
    assert f"{old.fleet} is over" in capsys.readouterr().out
    assert not ready.living()


def test_no_secret_is_seen_while_a_run_goes_on(ready, jobs, tmp_path, capsys, caplog):
    lines = []

    def look() -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                lines.append(path.read_bytes())
        (host_side,) = (tmp_path / "outputs/ec2/byzshield/hosts/outputs").glob("*/run0")
        finish(host_side)

    thread = when_it_runs(tmp_path, 0, look)
    with caplog.at_level(logging.DEBUG):  # as hydra.verbose=true does
        (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("wait")))
    thread.join()
    assert job.phase == "done"
    assert any(b"byzshield_exp" in line and b"job" in line for line in lines)
    assert not [line for line in lines if SECRET.encode() in line]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in "".join(capsys.readouterr()) + caplog.text
    chatty = ("boto", "urllib3", "asyncssh")  # they tell signatures and session tokens
    assert not [record for record in caplog.records if record.name.startswith(chatty)]


def sweep_arguments(tmp_path) -> tuple[str, ...]:
    return (
        "-m", *SMALL, "seed=0,1", "cluster=processes", "cluster.num_processes=5",
        "hydra/launcher=byzshield_ec2", "hydra.launcher.transport=local",
        "hydra.launcher.usd_per_hour=0.5", f"output_dir={tmp_path}",
    )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_rents_nothing_before_it_is_told_to(aws, tmp_path):
    before = aws.inventory()
    ended = run_program(*sweep_arguments(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "nothing was created; dry_run=false creates it" in ended.stdout
    assert aws.inventory() == before


@pytest.mark.slow
def test_a_sweep_with_real_torchrun(aws, tmp_path):
    """The whole way: Hydra, the launcher, torchrun on three hosts, and the table of the sweep."""
    arguments = sweep_arguments(tmp_path)
    ended = run_program(*arguments, "hydra.launcher.dry_run=false", timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert "botocore" not in ended.stdout + ended.stderr
    assert "Found credentials" not in ended.stdout + ended.stderr
    table = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row["state"] for row in table] == ["done", "done"]
    for row in table:
        assert (tmp_path / row["name"] / "summary.json").exists()
        assert list((tmp_path / row["name"] / "checkpoints").iterdir())
    assert not aws.living()
    count = len(aws.calls)
    again = run_program(*arguments, "hydra.launcher.dry_run=false")
    assert again.returncode == 0, again.stderr
    assert len(aws.calls) == count


@pytest.mark.slow
def test_a_real_run_goes_on_from_what_came_back(ready, tmp_path, monkeypatch):
    """Begun here, and done by hosts that share no folder."""
    outputs = tmp_path / "outputs"
    begun = run_program(
        "-m", *SMALL, "seed=0,1", "cluster=processes", "cluster.num_processes=5",
        f"output_dir={outputs}",
    )  # fmt: skip
    assert begun.returncode == 0, begun.stderr
    path = min(outputs.glob("*/job.json"))
    content = json.loads(path.read_text())
    content["config"]["steps"] = 8
    path.write_text(json.dumps(content))
    place_of = reach.place_of
    monkeypatch.setattr(runs, "place_of", lambda it: replace(place_of(it), is_shared=False))
    monkeypatch.setattr(reach, "LOCAL_PYTHON", sys.executable)
    (job,) = commands.sweep(options(tmp_path), jobs_of([path]))
    assert job.phase == "done", job.error
    assert json.loads((path.parent / "summary.json").read_text())["steps"] == 8
    assert "resumes after step 4" in (path.parent / "log.txt").read_text()


def test_after_a_fleet_that_is_down_there_is_nothing_to_resume(ready, jobs, tmp_path):
    commands.sweep(options(tmp_path), jobs_of(jobs("well")))
    with pytest.raises(ConfigError, match="is down; start the sweep again"):
        commands.resume(store_of(str(tmp_path / "outputs"), "byzshield"))
    assert phases(commands.sweep(options(tmp_path), jobs_of(jobs("well")))) == ["done"]


HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def test_handlers_are_as_before(ready, jobs, tmp_path):
    before = [signal.getsignal(number) for number in HEARD]
    commands.sweep(options(tmp_path), jobs_of(jobs("well")))
    assert [signal.getsignal(number) for number in HEARD] == before


def test_under_nohup_the_end_of_the_terminal_ends_nothing(ready, jobs, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def close_the_terminal() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        finish(host_side(tmp_path, 0))

    thread = when_it_runs(tmp_path, 0, close_the_terminal)
    try:
        (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("wait")))
    finally:
        signal.signal(signal.SIGHUP, before)
    thread.join()
    assert job.phase == "done"


def test_a_full_disk_ends_the_fleet(ready, jobs, tmp_path, monkeypatch, capsys):
    def refuse(path, content) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill() -> None:
        monkeypatch.setattr("byzshield_exp.launch.ec2.state.write_atomically", refuse)
        finish(host_side(tmp_path, 0))

    thread = when_it_runs(tmp_path, 0, fill)
    with pytest.raises(RunError, match=r"state\.json cannot be written: .*No space left"):
        commands.sweep(options(tmp_path), jobs_of(jobs("wait", "well")))
    thread.join()
    assert not ready.living()


def test_a_sweep_with_nothing_to_do_ends_what_is_left(ready, jobs, tmp_path, capsys):
    assert commands.sweep(options(tmp_path), []) == []
    assert not (tmp_path / "outputs").exists()
    commands.up(options(tmp_path))
    assert commands.sweep(options(tmp_path, dry_run=True), []) == []
    assert "is up and has nothing to do; dry_run=false ends it" in capsys.readouterr().out
    assert len(ready.living()) == 3
    assert EC2Launcher.where["cleans_up"]
    given = {"transport": "local", "usd_per_hour": 0.5, "dry_run": False}
    launcher = EC2Launcher(**given, output_dir=str(tmp_path / "outputs"))
    assert launcher.launch([], 0) == []
    assert not ready.living()
    assert state(tmp_path).phase == "down"
    count = len(ready.calls)
    assert commands.sweep(options(tmp_path), []) == []
    assert len(ready.calls) == count


def test_a_network_that_is_away_for_a_moment_costs_no_run(ready, jobs, tmp_path, monkeypatch):
    once = Config(retries={"total_max_attempts": 1})
    session = boto3.session.Session()
    clients = Cloud(lambda name, where: session.client(name, where, config=once), "us-east-1")
    monkeypatch.setattr(commands, "connect", lambda region: clients)
    dropped = []

    def go_away() -> None:
        until = time.monotonic() + 2
        ready.before = lambda call: (
            dropped.append(call) or "drop" if time.monotonic() < until else None
        )
        time.sleep(2.5)
        finish(host_side(tmp_path, 0))

    thread = when_it_runs(tmp_path, 0, go_away)
    (job,) = commands.sweep(options(tmp_path), jobs_of(jobs("wait")))
    thread.join()
    assert dropped
    assert (job.phase, job.attempts) == ("done", 1)
    assert not ready.living()
