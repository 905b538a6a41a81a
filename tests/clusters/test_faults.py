"""What happens when processes hang, die, talk nonsense or are told to stop: real ones, killed."""

import contextlib
import json
import os
import random
import re
import signal
import time

import pytest
import torch
from disturbing import (
    ENDLESS,
    FAILING,
    HONEST,
    STEPS,
    assert_finished,
    processes,
    processes_with,
    torchrun,
)
from running import SMALL, metrics_of, run_program, summary_of, text_of

from byzshield_exp.clusters import run_ranks
from byzshield_exp.clusters.processes import root_cause
from byzshield_exp.clusters.sockets.wire import Header, Kind
from byzshield_exp.clusters.sockets.worker import SocketWorker
from byzshield_exp.commands.exits import STOPPED as EXIT_STOPPED
from byzshield_exp.errors import ConfigError, RunError, Stopped, TooFewReplicas
from byzshield_exp.launch.ranks import run_rank

# Dead workers.


@pytest.mark.slow
@pytest.mark.parametrize("vote", ["digest", "majority"])
def test_a_killed_worker_changes_nothing(start, undisturbed, vote):
    run = start(*HONEST, STEPS, f"vote={vote}")
    run.wait_for_step(3)
    os.kill(run.ranks()[2], signal.SIGKILL)
    err = assert_finished(run, undisturbed)
    assert len(re.findall(r"lost rank 2 \(workers 5 to 9\) for the rest of the run", err)) == 1
    assert "Traceback" not in err
    assert metrics_of(run.folder)[-1]["absent"] == [5, 6, 7, 8, 9]
    assert metrics_of(run.folder)[0]["absent"] == []


@pytest.mark.slow
@pytest.mark.parametrize("vote", ["digest", pytest.param("majority", marks=pytest.mark.thorough)])
def test_as_many_as_the_placement_bears(start, vote, tmp_path):
    """Two of the five replicas of each file; a single process says what should come out."""
    options = ("approach=subsets", "K=6", "r=5")
    local = run_program(*HONEST, STEPS, *options, f"output_dir={tmp_path / 'local'}")
    assert local.returncode == 0, local.stderr
    run = start(*HONEST, STEPS, *options, f"vote={vote}", count=7)
    for number in range(2):
        run.wait_for_step(random.randint(2, 20) * (number + 1))
        os.kill(run.ranks()[-1 - number], signal.SIGKILL)
    code, err = run.end()
    assert code == 0, err
    found, expected = (
        summary_of(folder)["parameters_sha256"] for folder in (run.folder, tmp_path / "local")
    )
    assert found == expected


@pytest.mark.slow
def test_more_losses_stop_the_run_with_a_checkpoint(start, undisturbed):
    run = start(*HONEST, STEPS, "checkpoint_every=1000")
    run.wait_for_step(5)
    first, second = run.ranks()[1:3]
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    code, err = run.end()
    assert code == 1
    last = err.splitlines()[-1]
    assert re.match(
        r"byzshield_exp: step \d+: without workers 0, 1, 2, 3, 4 and 5 more fewer than 2 of the 3 "
        r"replicas are left of files [\d,]+[^;]*; \d+ steps are in a checkpoint, "
        r"the same command resumes$",
        last,
    )
    assert "Traceback" not in err
    again = start(*HONEST, STEPS, "checkpoint_every=1000")
    assert_finished(again, undisturbed)
    assert "resumes after step" in again.said[0].read_text()


@pytest.mark.slow
def test_present_workers_can_be_enough(start):
    run = start(*SMALL, STEPS, "cluster.majority_of=present", "q=1", "approach=mols")
    run.wait_for_step(3)
    for pid in run.ranks()[1:3]:
        os.kill(pid, signal.SIGKILL)
    code, err = run.end()
    assert code == 0, err
    assert len(metrics_of(run.folder)[-1]["absent"]) == 10


# Silent workers.


@pytest.mark.slow
@pytest.mark.parametrize("vote", ["digest", pytest.param("majority", marks=pytest.mark.thorough)])
def test_a_stopped_worker_is_absent_until_it_answers(start, undisturbed, vote):
    run = start(*HONEST, STEPS, f"vote={vote}", "cluster.worker_timeout=1")
    run.wait_for_step(3)
    stopped = run.ranks()[3]
    os.kill(stopped, signal.SIGSTOP)
    run.wait_for_step(len(metrics_of(run.folder)) + 5)
    os.kill(stopped, signal.SIGCONT)
    err = assert_finished(run, undisturbed)
    assert "rank 3 (workers 10 to 14) is silent for 1" in err
    assert "rank 3 (workers 10 to 14) answers again: it is back from the next step on" in err
    absent = [bool(record["absent"]) for record in metrics_of(run.folder)]
    assert any(absent)
    assert not absent[-1]
    seconds = [record["seconds"] for record in metrics_of(run.folder)]
    waits = [each for each in seconds if each["gather"] + each["deliver"] > 0.9]
    assert len(waits) == 1  # nobody waits for it a second time


@pytest.mark.slow
def test_a_server_that_was_stopped_finds_nobody_silent(start, undisturbed):
    run = start(*HONEST, STEPS, "cluster.worker_timeout=1")
    for step in (3, 20, 40):
        run.wait_for_step(step)
        server = run.ranks()[0]
        os.kill(server, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(server, signal.SIGCONT)
    err = assert_finished(run, undisturbed)
    assert "silent" not in err
    assert not any(record["absent"] for record in metrics_of(run.folder))


@pytest.mark.thorough
def test_a_whole_group_that_was_stopped_goes_on(start, undisturbed):
    run = start(*HONEST, STEPS, "cluster.worker_timeout=1")
    for step in (3, 20, 40):
        run.wait_for_step(step)
        os.killpg(run.process.pid, signal.SIGSTOP)  # as Ctrl-Z does
        time.sleep(2.5)
        os.killpg(run.process.pid, signal.SIGCONT)
    err = assert_finished(run, undisturbed)
    assert "silent" not in err


@pytest.mark.thorough
def test_a_silent_majority_stops_the_run(start):
    run = start(*HONEST, *ENDLESS, "cluster.worker_timeout=1")
    run.wait_for_step(3)
    for pid in run.ranks()[1:3]:
        os.kill(pid, signal.SIGSTOP)
    code, err = run.end()
    assert code == 1
    assert re.search(r"are left of files .*; \d+ steps are in a checkpoint", err.splitlines()[-1])


# Nonsense.


def talking_rank(rendezvous, job):
    """A rank; the last of them sends nonsense beside its replicas, at last so that it is closed."""
    if rendezvous.rank == 3:
        collect = SocketWorker.collect

        def finish_badly(self, step, statement, lying):
            head = Header(Kind.ROW, self._run, self.rank, 11, 3, step)
            for kind in Kind:
                self._line.send(Header(kind, self._run, self.rank, 11, 3, step).pack())
            self._line.send(head.carrying(64).pack(), bytes(64))
            self._line.send(Header(Kind.DIGEST, 0, 1, 2, 3, step, 32).pack(), bytes(32))
            if step == 20:
                self._line.send(b"\xff" * 300)
            collect(self, step, statement, lying)

        SocketWorker.collect = finish_badly
    return run_rank(rendezvous, job)


def lying_rank(rendezvous, job):
    """A rank; the last of them sends other rows than its digests say."""
    if rendezvous.rank == 3:
        answer = SocketWorker._answer

        def answer_badly(self, asked):
            head, content = answer(self, asked)
            changed = bytearray(content)
            changed[17] ^= 1
            return head, memoryview(changed)

        SocketWorker._answer = answer_badly
    return run_rank(rendezvous, job)


def config_of(folder, *overrides):
    """The configuration of a run, made by the program itself."""
    done = run_program(*HONEST, "steps=1", *overrides, *processes(4), f"output_dir={folder}")
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("**/step_*.pt")
    return json.loads(torch.load(path, weights_only=True)["config"])


@pytest.mark.slow
@pytest.mark.parametrize("vote", ["digest", pytest.param("majority", marks=pytest.mark.thorough)])
def test_nonsense_is_rejected_and_counted(tmp_path, undisturbed, vote):
    config = config_of(tmp_path / "first", f"vote={vote}") | {"steps": 40}
    folder = tmp_path / "run"
    run_ranks(talking_rank, 4, text_of(config, folder))
    assert summary_of(folder)["parameters_sha256"] == undisturbed("steps=40")
    records = metrics_of(folder)
    events = "\n".join(event for record in records for event in record.get("events", []))
    assert "rejected a message of rank 3 (workers 10 to 14)" in events
    assert "more of it are only counted" in events
    assert "lost rank 3 (workers 10 to 14) for the rest of the run: it sent bytes that" in events
    assert all(record["rejected"] >= 5 for record in records[:20])
    assert [bool(record["absent"]) for record in records] == [False] * 20 + [True] * 20


@pytest.mark.slow
def test_a_worker_that_sends_another_row_is_caught(tmp_path, undisturbed):
    config = config_of(tmp_path / "first") | {"steps": 40}
    folder = tmp_path / "run"
    run_ranks(lying_rank, 4, text_of(config, folder))
    assert summary_of(folder)["parameters_sha256"] == undisturbed("steps=40")
    caught = {worker for record in metrics_of(folder) for worker in record["caught"]}
    assert caught
    assert caught <= set(range(10, 15))
    assert re.search(
        r"step \d+: worker 1\d \(rank 3 \(workers 10 to 14\)\) sent another row for file \d+ than "
        r"its digest says: caught",
        "\n".join(event for record in metrics_of(folder) for event in record.get("events", [])),
    )


# The server, and requests to stop.


@pytest.mark.slow
def test_a_killed_server_ends_all_and_the_run_resumes(start, undisturbed):
    run = start(*HONEST, STEPS, "checkpoint_every=10")
    run.wait_for_step(25)
    os.kill(run.ranks()[0], signal.SIGKILL)
    code, err = run.end(30)
    assert code == 1
    assert err.splitlines()[-1] == "byzshield_exp: rank 0, the server, was killed by signal 9"
    assert "Traceback" not in err
    assert_finished(start(*HONEST, STEPS, "checkpoint_every=10"), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "by"),
    [
        (0, "Ctrl-C"),
        (4, "SIGTERM"),
        pytest.param(0, "SIGTERM", marks=pytest.mark.thorough),
        pytest.param(4, "Ctrl-C", marks=pytest.mark.thorough),
    ],
)
def test_a_run_that_is_asked_to_stop_saves_what_was_done(start, undisturbed, count, by):
    run = start(*HONEST, STEPS, "checkpoint_every=1000", count=count)
    run.wait_for_step(5)
    if by == "SIGTERM":
        run.process.send_signal(signal.SIGTERM)
    else:
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    code, err = run.end(30)
    assert code == {"SIGTERM": EXIT_STOPPED, "Ctrl-C": 130}[by]
    line = err.splitlines()[-1]
    done = re.match(rf"byzshield_exp: stopped by {by}; (\d+) steps are in a checkpoint", line)
    assert done, err
    again = start(*HONEST, STEPS, "checkpoint_every=1000", count=count)
    assert_finished(again, undisturbed)


@pytest.mark.thorough
def test_a_whole_job_is_told_to_stop(start, undisturbed):
    run = start(*HONEST, STEPS, "checkpoint_every=1000")
    run.wait_for_step(5)
    os.killpg(run.process.pid, signal.SIGTERM)  # as Slurm does
    code, err = run.end(30)
    assert code == EXIT_STOPPED, err
    assert_finished(start(*HONEST, STEPS, "checkpoint_every=1000"), undisturbed)


@pytest.mark.slow
def test_a_killed_program_takes_its_ranks_along(start):
    run = start(*HONEST, *ENDLESS)
    run.wait_for_step(1)
    run.process.kill()  # the fixture looks for what is left


@pytest.mark.thorough
def test_sigterm_ends_a_whole_sweep(start):
    run = start("-m", *HONEST, "steps=100000", "seed=0,1", count=0)
    run.wait_for_step(5)
    run.process.send_signal(signal.SIGTERM)
    code, err = run.end(30)
    assert code == EXIT_STOPPED
    assert err.count("stopped by SIGTERM") == 1


# Errors of a rank's own.


def test_the_error_of_the_rank_that_failed_is_on_top(start, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    lying = ("attack._target_=failing.forge",)
    run = start(*SMALL, *ENDLESS, *lying, env={"PYTHONPATH": str(tmp_path)})
    code, err = run.end()
    assert code == 1
    assert "ArithmeticError: a rule of the user's own broke" in err
    assert err.splitlines()[-1].startswith("byzshield_exp: rank ")
    assert "lost the server" not in err


@pytest.mark.thorough
def test_a_failed_point_of_a_sweep_on_ranks_does_not_stop_the_others(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    options = ("attack._target_=failing.forge", "+attack.when=2,100", f"output_dir={tmp_path}/out")
    done = run_program("-m", *SMALL, *processes(3), *options, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "a rule of the user's own broke" in done.stderr
    assert done.stdout.count("done: ") == 1


def test_the_root_cause_is_the_first_error_of_a_ranks_own():
    def report(error, when, kind="RunError"):
        return (1, {"error": error, "kind": kind, "time": when, "traceback": ""})

    lost = report("lost the server: it closed the connection", 1, "LostServer")
    own, later = report("it broke", 5), report("it broke too", 6)
    fine = (0, {"result": "{}"})
    assert "rank 2: it broke" in str(root_cause({0: lost, 1: later, 2: own, 3: (None, None)}))
    assert str(root_cause({0: own, 1: later})) == "it broke"
    assert "rank 0, the server, was killed by signal 9" in str(root_cause({0: (-9, None), 1: lost}))
    assert "exited with code 3" in str(root_cause({0: (3, None)}))
    assert root_cause({0: fine, 1: (-9, None), 2: lost}) is None
    for kind in (ConfigError, Stopped):
        assert isinstance(root_cause({0: report("K=3", 1, kind.__name__)}), kind)
    assert isinstance(root_cause({0: report("few", 1, "TooFewReplicas")}), RunError)
    assert issubclass(TooFewReplicas, RunError)


# torchrun, which ends all ranks when one fails.


@pytest.mark.slow
def test_a_typo_under_torchrun_ends_all_when_they_are_asked_to(start):
    """Ranks that wait for rank 0 do not have to be killed, which torchrun does after 30 s."""
    run = start("atack=alie", count=0, prefix=torchrun())
    code, err = run.end(60)
    assert code == 1
    assert "unknown key atack; did you mean 'attack'?" in err
    assert "SIGTERM" in err
    assert "SIGKILL" not in err


@pytest.mark.thorough
def test_a_point_that_cannot_write_under_torchrun_does_not_stop_the_others(start, tmp_path):
    points = ("-m", *HONEST, "steps=3", "seed=1,2")
    run = start(*points, count=0, prefix=torchrun())
    code, err = run.end()
    assert code == 0, err
    first, second = sorted(run.folder.glob("*seed=*"))
    names = [path.name for path in (first, second)]
    blocked = tmp_path / "blocked"
    (blocked / names[0] / "metrics.jsonl").mkdir(parents=True)
    run = start(*points, count=0, prefix=torchrun(), folder=blocked)
    code, err = run.end()
    assert code != 0
    assert "Is a directory" in err
    assert not (blocked / names[0] / "summary.json").exists()
    assert (blocked / names[1] / "summary.json").exists()


@pytest.mark.slow
def test_nothing_to_do_under_torchrun_ends_at_once(start):
    """The other ranks wait for a run; they are told that there is none."""
    points = (*HONEST, "steps=3")
    for more in (("plan=true",), (), ()):
        run = start(*points, *more, count=0, prefix=torchrun())
        code, err = run.end(60)
        assert code == 0, err


# Chaos.


@pytest.mark.thorough
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [0])
def test_twelve_faults_never_hang_a_run(start, undisturbed, seed):
    """Each ends in a finished run or a clear stop that resumes; the result is always the same."""
    chance = random.Random(seed)
    steps = "steps=200"
    options = (*HONEST, steps, "checkpoint_every=25", "cluster.worker_timeout=2")
    run, stops = start(*options, count=7), []
    for _ in range(12):
        with contextlib.suppress(TimeoutError):
            run.wait_for_step(len(metrics_of(run.folder)) + chance.randint(1, 10)
                              if list(run.folder.glob("*/metrics.jsonl")) else 2)  # fmt: skip
        stops += do_harm(chance, run)
        if run.process.poll() is not None:
            run = start(*options, count=7)
    for pid in processes_with(run.mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    code, err = run.end(120)
    if code != 0:
        assert "resumes" in err.splitlines()[-1] or "killed by signal" in err, err
        run = start(*options, count=7)
    assert_finished(run, undisturbed, steps)


def do_harm(chance, run):
    """One fault; returns the last line of a run that it ended."""
    kind = chance.choice(["kill", "stop", "stop and go on", "server", "SIGTERM", "program"])
    if run.process.poll() is None:
        pids = run.ranks()
        victim = chance.choice(pids[1:]) if len(pids) > 1 else pids[0]
        with contextlib.suppress(ProcessLookupError):
            if kind == "kill":
                os.kill(victim, signal.SIGKILL)
            elif kind.startswith("stop"):
                os.kill(victim, signal.SIGSTOP)
                time.sleep(chance.uniform(0, 3))
                if kind == "stop and go on":
                    os.kill(victim, signal.SIGCONT)
            elif kind == "server":
                os.kill(pids[0], signal.SIGKILL)
            elif kind == "SIGTERM":
                run.process.send_signal(signal.SIGTERM)
            else:
                run.process.kill()
    if kind in ("kill", "stop", "stop and go on") and run.process.poll() is None:
        return []
    code, err = run.end(60)  # never a hang
    lines = err.splitlines()
    if kind != "program" and code not in (0, -9):
        assert any(word in lines[-1] for word in ("resumes", "killed by signal", "stopped")), err
    return [(kind, code)]
