"""Over torch.distributed: ranks that are killed, stopped, told to end, or that fail."""

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from disturbing import ENDLESS, FAILING, HONEST, assert_finished, processes, torchrun
from running import metrics_of, modules_in, text_of
from torch.distributed import HashStore

from byzshield_exp.clusters import join, meeting, run_ranks, start_forkserver
from byzshield_exp.clusters.process_group import ProcessGroup
from byzshield_exp.clusters.said import Said
from byzshield_exp.clusters.torchrun import meet
from byzshield_exp.commands.exits import STOPPED as EXIT_STOPPED
from byzshield_exp.errors import RunError
from byzshield_exp.launch.ranks import play, preload, run_rank
from byzshield_exp.training import learner

STEPS = "steps=150"
SAVED = r"(\d+) steps are in a checkpoint, the same command resumes$"
GONE = re.compile(r"rank (\d) \(workers \d+ to \d+\) is gone; " + SAVED, re.MULTILINE)


def run_badly(make_config, folder, target, *more, overrides=()):
    """Do a run in ranks of the forkserver, of which some fail; the error of the run."""
    start_forkserver(preload())
    options = (*HONEST, "steps=8", "eval_every=2", "vote=digest", *overrides)
    config = make_config(*processes(4), "cluster.backend=gloo", *options)
    job = json.dumps([text_of(config, folder), *more])
    with pytest.raises(RunError) as raised:
        run_ranks(target, 4, job, preload())
    return str(raised.value)


# In each phase of a step.

FAULTS = {  # a method, and the call of it that falls into the third step
    "publish": (ProcessGroup, "_broadcast", 8),  # of parameters; three in each step
    "compute": (ProcessGroup, "send", 60),  # 25 in each step
    "collect": (ProcessGroup, "collect", 3),
    "fetch": (Said, "row", 20),  # 8 or 9 in each step
    "evaluate": (ProcessGroup, "publish", 3),  # while rank 0 evaluates
}

QUICK = ("publish", "collect")


def faulty_rank(rendezvous, job):
    """A rank; the last one sends itself a signal, or fails, in a phase of the third step."""
    job, phase, number = json.loads(job)

    def fault():
        if number is None:
            raise ArithmeticError("it broke")
        os.kill(os.getpid(), number)

    if rendezvous.rank == 0 and phase == "evaluate":
        before(learner, "evaluate", 1, lambda: time.sleep(0.5))
    if rendezvous.rank == 3:
        before(*FAULTS[phase], fault)
    return run_rank(rendezvous, job)


def before(owner, name, when, do):
    """Do something before the call of a function that has this number."""
    function, count = getattr(owner, name), 0

    def call(*arguments):
        nonlocal count
        count += 1
        if count == when:
            do()
        return function(*arguments)

    setattr(owner, name, call)


@pytest.mark.parametrize(
    "phase",
    [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in FAULTS],
)
def test_a_rank_that_is_killed_is_named(tmp_path, plain_config, phase):
    error = run_badly(plain_config, tmp_path, faulty_rank, phase, signal.SIGKILL)
    assert GONE.fullmatch(error).groups() == ("3", "2")
    assert len(metrics_of(tmp_path)) == 2
    assert [path.name for path in tmp_path.glob("**/*.pt")] == ["step_00000002.pt"]


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_not_the_one_that_waits_for_it(tmp_path, plain_config):
    """Parameters come to rank 3 by way of rank 2, which rank 0 waits for."""
    timeout = ["cluster.worker_timeout=1"]
    error = run_badly(
        plain_config, tmp_path, faulty_rank, "publish", signal.SIGSTOP, overrides=timeout
    )
    named = r"rank 3 \(workers 10 to 14\) has not answered for 1 s \(cluster.worker_timeout\); "
    assert re.fullmatch(named + SAVED, error)


def deserted_rank(rendezvous, job):
    """A rank; rank 0 is killed while the others compute what they are about to send."""
    (job,) = json.loads(job)
    if rendezvous.rank == 0:
        before(ProcessGroup, "collect", 3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    else:
        before(ProcessGroup, "send", 51, lambda: time.sleep(0.5))
    return run_rank(rendezvous, job)


def test_ranks_that_lose_rank_0_say_nothing_of_their_own(tmp_path, plain_config):
    error = run_badly(plain_config, tmp_path, deserted_rank, overrides=["vote=majority"])
    assert error == "rank 0, the server, was killed by signal 9"


def test_the_error_of_a_rank_is_told_not_its_loss(tmp_path, plain_config):
    error = run_badly(plain_config, tmp_path, faulty_rank, "compute", None)
    assert error.startswith(
        "rank 3: ArithmeticError: it broke (tests/clusters/test_group_faults.py:"
    )


# Before a run begins.


def rank_of_another_run(rendezvous, job):
    """A rank that has another run than rank 0, as if that had failed before it began."""
    channel = join(rendezvous, "gloo")
    channel.run = int(rendezvous.rank > 0)
    (job,) = json.loads(job)
    play(channel, job)


def test_a_rank_that_is_at_another_run_ends(tmp_path, plain_config):
    error = run_badly(plain_config, tmp_path, rank_of_another_run)
    assert re.fullmatch(
        r"rank \d: rank 0, the server, is at another run: it did not begin this one", error
    )


def test_ranks_meet_again_after_a_restart():
    """The store has what earlier attempts left, one of which ended while it met."""
    store = HashStore()
    store.set("word/1", "of a rank that was killed")
    for order in ((2, 1, 0), (0, 1, 2), (1, 0, 2)):
        with ThreadPoolExecutor(3) as pool:
            parts = list(pool.map(lambda rank: meet(store, rank, 3), order, timeout=30))
        assert not any(part.check(["job"]) for part in parts)
        parts[0].set("job", "")
        assert all(part.check(["job"]) for part in parts)


def test_ranks_that_do_not_come_are_named(monkeypatch):
    monkeypatch.setattr(meeting, "JOIN_S", 0.2)
    with pytest.raises(RunError, match=r"ranks \[1, 2\] did not come within 0 s"):
        meet(HashStore(), 0, 3)


# torchrun.


@pytest.mark.slow
def test_restarts_under_torchrun_end_with_the_same_bits(start, undisturbed):
    """A rank with workers is killed, and later rank 0."""
    options = (*HONEST, STEPS, "checkpoint_every=1000")
    run = start(*options, count=0, prefix=torchrun("--max-restarts", "2"))
    done = kill_at(run, 5, 2, signal.SIGKILL)
    kill_at(run, done + 30, 0, signal.SIGKILL)
    err = assert_finished(run, undisturbed, STEPS)
    assert [rank for rank, _ in GONE.findall(err)] == ["2"]
    assert_nothing_aborted(err)


def kill_at(run, step, rank, number):
    run.wait_for_step(step)
    os.kill(run.torchrun_ranks()[rank], number)
    return len(metrics_of(run.folder))


def send(number, *pids):
    for pid in pids:
        os.kill(pid, number)


def assert_nothing_aborted(err):
    assert "terminate called" not in err
    assert "exitcode  : -6" not in err
    assert "SIGABRT" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "line"),
    [
        pytest.param(
            0,
            r"byzshield_exp: rank \d: rank 0, the server, shows no sign of life for 3 s ",
            id="rank 0",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            2, r"byzshield_exp: rank 2 \(workers 5 to 9\) has not answered for 3 s ", id="rank 2"
        ),
    ],
)
def test_a_stopped_rank_ends_all_but_a_stop_of_all_does_not(start, rank, line):
    run = start(*HONEST, *ENDLESS, "cluster.worker_timeout=3", count=0, prefix=torchrun())
    run.wait_for_step(5)
    pids = run.torchrun_ranks()
    first = pids[:1] if rank == 0 else pids[1:]
    send(signal.SIGSTOP, *first)
    time.sleep(0.3)  # the others wait for these
    send(signal.SIGSTOP, run.process.pid, *pids)
    time.sleep(5)
    send(signal.SIGCONT, run.process.pid, *pids)
    kill_at(run, len(metrics_of(run.folder)) + 20, rank, signal.SIGSTOP)
    code, err = run.end(30)
    assert code == 1
    assert len(re.findall(line, err)) == 1
    assert len(re.findall(SAVED, err, re.MULTILINE)) == (rank > 0)
    assert "Unable to shutdown" not in err  # torchrun's, after 30 s
    assert_nothing_aborted(err)


STOPPED = re.compile(r"^byzshield_exp: stopped by SIGTERM; " + SAVED, re.MULTILINE)


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_what_was_done(start, undisturbed):
    options = (*HONEST, STEPS, "checkpoint_every=1000")
    run = start(*options, count=0, prefix=torchrun())
    run.wait_for_step(5)
    run.process.send_signal(signal.SIGTERM)
    code, err = run.end(30)
    assert code == 1  # torchrun's
    assert len(STOPPED.findall(err)) == 1
    assert "Unable to shutdown" not in err
    assert_nothing_aborted(err)
    assert_finished(start(*options, count=0, prefix=torchrun()), undisturbed, STEPS)


@pytest.mark.thorough
def test_sigterm_to_rank_0_alone_is_a_restart(start, undisturbed):
    options = (*HONEST, STEPS, "checkpoint_every=1000")
    run = start(*options, count=0, prefix=torchrun("--max-restarts", "1"))
    kill_at(run, 5, 0, signal.SIGTERM)
    err = assert_finished(run, undisturbed, STEPS)
    assert len(STOPPED.findall(err)) == 1
    assert f"exitcode: {EXIT_STOPPED}" in err
    assert_nothing_aborted(err)


SLOW = """
import functools, os, pathlib, time
from byzshield_exp.networks import mlp

@functools.wraps(mlp)
def network(**options):
    made = mlp(**options)
    made.register_forward_pre_hook(evaluate)
    return made

def evaluate(module, _):
    if not module.training:
        pathlib.Path(os.environ["FLAG"]).touch()
        time.sleep(1)
"""


@pytest.mark.thorough
def test_a_rank_that_is_killed_while_rank_0_evaluates_is_named(start, tmp_path):
    """torchrun's SIGTERM comes before rank 0 waits for that rank."""
    (tmp_path / "slow.py").write_text(SLOW)
    flag = tmp_path / "evaluates"
    options = (*HONEST, *ENDLESS, "eval_every=5", "network._target_=slow.network")
    environment = {**modules_in(tmp_path), "FLAG": str(flag)}
    run = start(*options, count=0, prefix=torchrun(), env=environment)
    run.wait_for(flag.exists)
    os.kill(run.torchrun_ranks()[1], signal.SIGKILL)
    code, err = run.end(30)
    assert code == 1
    assert GONE.findall(err) == [("1", "5")]
    assert_nothing_aborted(err)


@pytest.mark.thorough
def test_the_error_of_an_attack_is_above_its_consequences(start, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    options = (*HONEST, *ENDLESS, "q=1", "attack=alie", "attack._target_=failing.forge")
    run = start(*options, count=0, prefix=torchrun(), env=modules_in(tmp_path))
    code, err = run.end()
    assert code == 1
    line = (
        r"^byzshield_exp: rank \d: ArithmeticError: a rule of the user's own broke \(.*in forge\)"
    )
    assert re.search(rf"{line}; {SAVED}", err, re.MULTILINE), err
    assert not GONE.search(err)
    assert_nothing_aborted(err)


RULES = """
from byzshield_exp.votes import digest, vote_traits

def mean(rows, num_corrupt, fails: bool):
    if fails and rows.shape[1] > 100:  # no trial before the run
        raise ArithmeticError("an aggregator of the user's own broke")
    return rows.mean(dim=0)

@vote_traits(reads="digests", is_exact=True)
def vote(replicas, fails: bool):
    if fails:
        raise ArithmeticError("a vote of the user's own broke")
    return digest(replicas)
"""


@pytest.mark.slow
def test_after_an_error_on_rank_0_the_next_run_begins(start, tmp_path):
    (tmp_path / "rules.py").write_text(RULES)
    rules = [
        f"{kind}._target_=rules.{name}" for kind, name in (("aggregator", "mean"), ("vote", "vote"))
    ]
    rules += [f"+{kind}.fails=true,false" for kind in ("aggregator", "vote")]
    run = start("-m", *HONEST, *rules, count=0, prefix=torchrun(), env=modules_in(tmp_path))
    code, err = run.end()
    assert code == 1
    for kind, count in (("an aggregator", 1), ("a vote", 2)):
        line = f"byzshield_exp: ArithmeticError: {kind} of the user's own broke ("
        assert err.count(line) == count, err
    assert run.said[0].read_text().count("done: ") == 1
    assert_nothing_aborted(err)
