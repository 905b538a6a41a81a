"""Runs of a sweep on gangs that are folders of this machine; EC2 is moto."""

import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from ec2_cloud import SECRET, error_of
from ec2_sweep import finish, host_side, options, phases, starts, state, when_it_runs

from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.launch.ec2 import commands, reach, resources, runs
from byzshield_exp.launch.ec2.cloud import Cloud, NoCapacity
from byzshield_exp.launch.ec2.hosts import Unreachable
from byzshield_exp.launch.ec2.local import LocalTransport
from byzshield_exp.launch.ec2.runs import jobs_of
from byzshield_exp.launch.ec2.state import store_of

pytestmark = pytest.mark.slow  # together they take minutes


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


def test_each_run_may_have_its_own_gang(ready, jobs, tmp_path):
    done = commands.sweep(options(tmp_path, reuse=False), jobs_of(jobs("well", "well")))
    assert phases(done) == ["done", "done"]
    gangs = state(tmp_path).gangs
    assert len(gangs) == 2
    assert not {*gangs[0].instances} & {*gangs[1].instances}
    assert len({part.token for gang in gangs for part in gang.parts}) == 4


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
