"""Peers whose processes are killed or stopped: real ones; they alone are banned."""

import os
import re
import signal

import pytest
from disturbing import ENDLESS, Started, processes_with
from running import SMALL, metrics_of, summary_of

PEERS = (
    *SMALL, "approach=btard", "K=9", "q=0", "attack=none", "batch_size=27", "network.hidden=[64]",
    "cluster.worker_timeout=3",
)  # fmt: skip
STEPS = "steps=150"


@pytest.fixture
def start(tmp_path):
    """Start a run in four processes, three peers in each but rank 0."""
    mark = os.urandom(8).hex()
    runs = []

    def call(*overrides):
        command = (os.sys.executable, "-m", "byzshield_exp")
        runs.append(Started(tmp_path / "outputs", overrides, 4, command, mark, None))
        return runs[-1]

    yield call
    for run in runs:
        run.process.kill()
        run.process.wait()
    for pid in processes_with(mark):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_peers_of_a_lost_process_are_banned_and_the_run_goes_on(start, how):
    run = start(*PEERS, STEPS)
    run.wait_for_step(3)
    lost = run.ranks()[2]
    os.kill(lost, how)
    code, err = run.end(120)
    assert code == 0, err
    assert "Traceback" not in err
    summary = summary_of(run.folder)
    assert summary["banned"] == [3, 4, 5]
    assert {ban["reason"] for ban in summary["bans"]} == {"absent"}
    records = metrics_of(run.folder)
    assert [record["step"] for record in records] == list(range(1, 151))
    assert {record["alive"] for record in records} == {9, 6}
    waited = [record["seconds"]["total"] for record in records if record["attempts"] > 1]
    assert len(waited) == 1


@pytest.mark.slow
def test_too_few_peers_end_the_run_with_a_checkpoint(start):
    run = start(*PEERS, *ENDLESS)
    run.wait_for_step(3)
    for pid in run.ranks()[1:]:
        os.kill(pid, signal.SIGKILL)
    code, err = run.end()
    assert code == 1
    last = err.splitlines()[-1]
    assert re.search(r"step \d+: 0 peers are left, none of them computes; \d+ steps are in a", last)
