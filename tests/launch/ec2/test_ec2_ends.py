"""A sweep that is ended: by a limit, a signal, a full disk or a driver that is killed."""

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from ec2_sweep import finish, host_side, options, phases, starts, state, when_it_runs
from omegaconf import OmegaConf

from byzshield_exp.errors import ConfigError, RunError, Stopped
from byzshield_exp.launch.ec2 import commands, reach
from byzshield_exp.launch.ec2.runs import jobs_of
from byzshield_exp.launch.ec2.state import State, store_of
from hydra_plugins.byzshield_ec2_launcher import EC2Launcher

pytestmark = pytest.mark.slow  # together they take minutes


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


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.thorough)])
def test_sigterm_makes_a_checkpoint_and_ends_everything(ready, jobs, tmp_path, name, request):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP
    request.addfinalizer(lambda: signal.signal(number, before))
    thread = when_it_runs(tmp_path, 0, lambda: os.kill(os.getpid(), number))
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


@pytest.mark.parametrize("how", ["resume", pytest.param("again", marks=pytest.mark.thorough)])
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
    launcher.setup(hydra_context=None, task_function=None, config=OmegaConf.create({}))
    assert launcher.launch([], 0) == []
    assert not ready.living()
    assert state(tmp_path).phase == "down"
    count = len(ready.calls)
    assert commands.sweep(options(tmp_path), []) == []
    assert len(ready.calls) == count
