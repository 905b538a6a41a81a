"""The host side of the EC2 launcher, on folders of this machine: scripts, files and gangs."""

import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rented_hosts import marked, shellcheck

from byzshield_exp.ec2 import gang as gangs
from byzshield_exp.ec2.archive import unpack
from byzshield_exp.ec2.gang import Gang, collect, end_gang, run_gang
from byzshield_exp.ec2.hosts import Ended, Host, Transport, Unreachable, bounded, on_all
from byzshield_exp.ec2.local import LocalTransport
from byzshield_exp.ec2.ssm import SsmTransport
from byzshield_exp.errors import RunError

HOSTS = tuple(Host(f"i-{node}", "127.0.0.1", f"host{node}", node) for node in range(3))

# Stands for Python with torchrun: it does what the file of the job says.
TORCHRUN = """\
#!/bin/bash
while [ "$1" != --node-rank ]; do shift; done
node=$2
. "${@: -1}"
"""


@pytest.fixture
def local(tmp_path):
    return LocalTransport(tmp_path / "hosts")


@pytest.fixture
def gang(tmp_path, local):
    """``gang(what the job does)``; whatever is left of it is ended after the test."""
    python = tmp_path / "python"
    python.write_text(TORCHRUN)
    python.chmod(0o755)
    made = []

    def make(does: str, name: str = "one", **settings) -> Gang:
        job = tmp_path / f"{name}.job"
        job.write_text(does)
        settings = {"look_every_s": 0.1, "lost_after_s": 5.0, "end_within_s": 5.0} | settings
        folder = str(tmp_path / "gangs")
        one = Gang(
            f"{name}-{os.getpid()}", HOSTS, (2, 1, 1), str(job), str(python), folder, **settings
        )
        made.append(one)
        return one

    yield make
    for one in made:
        end_gang(local, one, 0.0)


def wait_for_all(tmp_path: Path) -> None:
    """Until the job runs on all hosts: it writes ``up`` with its node's number."""
    while len(list(tmp_path.glob("up[0-2]"))) < 3:
        time.sleep(0.05)


def test_the_ways_to_reach_a_host_are_transports(local):
    assert isinstance(local, Transport)
    assert issubclass(SsmTransport, Transport)


def test_a_script_runs_in_the_home_of_its_host_and_its_end_comes_back(local, tmp_path):
    assert local.run(HOSTS[1], "pwd; echo wrong >&2; exit 3", 5.0) == Ended(
        3, f"{tmp_path}/hosts/host1\nwrong\n"
    )


def test_a_script_is_bash_reads_nothing_and_may_hold_a_document(local):
    script = (
        "set -o pipefail\ncat\nread -r word || echo none\ncat <<'END'\n$HOME `id` 'x'\nEND\n# end"
    )
    assert local.run(HOSTS[0], script, 5.0) == Ended(0, "none\n$HOME `id` 'x'\n")


def test_only_the_end_of_a_long_output_comes_back(local):
    ended = local.run(HOSTS[0], "seq 100000; echo last", 10.0)
    assert len(ended.output) == 20_000
    assert ended.output.endswith("100000\nlast\n")


def test_a_script_that_takes_too_long_is_ended(local):
    start = time.monotonic()
    assert local.run(HOSTS[0], "echo begun; sleep 60", 1.0) == Ended(124, "begun\n")
    assert time.monotonic() - start < 10


def test_what_a_script_leaves_running_holds_nothing_up(local):
    start = time.monotonic()
    ended = local.run(HOSTS[0], "setsid sleep 20 & echo $!", 5.0)
    assert time.monotonic() - start < 4
    os.kill(int(ended.output), signal.SIGKILL)


def test_a_script_does_not_appear_among_the_processes(local):
    word = "sesame-in-a-script"
    thread = threading.Thread(target=local.run, args=(HOSTS[0], f"x={word}; sleep 1.5", 5.0))
    thread.start()
    time.sleep(0.7)
    listed = subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout
    thread.join()
    assert "sleep 1.5" in listed
    assert word not in listed


def test_a_file_goes_there_and_a_folder_comes_back(local, tmp_path):
    source = tmp_path / "file"
    source.write_bytes(bytes(range(256)))
    local.send(HOSTS[0], source, "made/one.bin")
    local.send(HOSTS[0], source, "made/deep/er/.two.bin.partial")
    local.fetch(HOSTS[0], "made", tmp_path / "came")
    assert (tmp_path / "came" / "one.bin").read_bytes() == source.read_bytes()
    assert not list((tmp_path / "came").glob("**/.*"))
    with pytest.raises(RunError, match="i-1: nothing/here cannot be read"):
        local.fetch(HOSTS[1], "nothing/here", tmp_path / "came")


def test_an_archive_cannot_reach_out_of_its_folder(tmp_path):
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as content:
            entry = tarfile.TarInfo("../outside")
            entry.size = 1
            content.addfile(entry, io.BytesIO(b"x"))
        archive.seek(0)
        with pytest.raises(RunError, match="came damaged"):
            unpack(archive, tmp_path / "inside")
    assert not (tmp_path / "outside").exists()


def test_all_hosts_are_asked_at_once_and_a_silent_one_is_told():
    together = threading.Barrier(3, timeout=5)

    def act(host: Host) -> str:
        together.wait()
        if host.node == 1:
            raise Unreachable("silent")
        return host.name

    answers = on_all(HOSTS, act)
    assert [answers[0], answers[2]] == ["i-0", "i-2"]
    assert isinstance(answers[1], Unreachable)


def test_scripts_for_any_shell():
    for shell in ("sh", "bash"):
        ended = subprocess.run(
            [shell, "-s"], input=bounded("exit 7", 5.0), text=True, capture_output=True
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (7, "", "")


def test_a_gang_runs_on_all_hosts_and_its_results_come(gang, local, tmp_path):
    one = gang(f"""
        mkdir -p {tmp_path}/run
        echo "{{}}" > {tmp_path}/run/status.json
        echo "node $node of $*"
    """)
    end = run_gang(local, one)
    assert (end.code, end.codes, end.lost) == (0, {"i-0": 0, "i-1": 0, "i-2": 0}, {})
    assert "node 0 of --node-rank 0 --nproc-per-node 2 --master-addr 127.0.0.1" in end.output
    collect(local, one, f"{tmp_path}/run", tmp_path / "came")
    assert (tmp_path / "came/status.json").exists()


def test_a_gang_that_runs_is_found_again_and_not_started_twice(gang, local, tmp_path):
    one = gang(f"echo $node >> {tmp_path}/starts; touch {tmp_path}/up$node; sleep 2")
    code = (
        "import sys, pickle; from byzshield_exp.ec2.gang import run_gang;"
        "run_gang(*pickle.load(sys.stdin.buffer))"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert driver.stdin is not None
    driver.stdin.write(pickle.dumps((local, one)))
    driver.stdin.close()
    wait_for_all(tmp_path)
    driver.kill()
    driver.wait()
    assert marked(one)
    assert run_gang(local, one).code == 0
    assert sorted((tmp_path / "starts").read_text().split()) == ["0", "1", "2"]


def test_a_failed_host_is_named_by_its_code_and_log_and_the_others_are_ended(gang, local):
    one = gang('[ $node = 2 ] && { echo "no memory"; exit 9; }; sleep 60', end_within_s=1.0)
    end = run_gang(local, one)
    assert (end.code, end.codes["i-2"], end.lost) == (9, 9, {})
    assert end.output == "no memory\n"
    assert marked(one) == []


def test_a_host_whose_processes_are_killed_is_lost_and_the_gang_ends_everywhere(
    gang, local, tmp_path
):
    one = gang(f"touch {tmp_path}/up$node; sleep 60", end_within_s=1.0)
    result = []
    thread = threading.Thread(target=lambda: result.append(run_gang(local, one)))
    thread.start()
    wait_for_all(tmp_path)
    for process in marked(one, "1"):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    thread.join(20)
    (end,) = result
    assert end.code == -1
    assert end.lost == {"i-1": "its processes are gone and left no exit code"}
    assert marked(one) == []


def test_a_host_that_is_silent_is_lost_after_its_time_and_not_before(
    gang, local, tmp_path, monkeypatch
):
    one = gang(f"touch {tmp_path}/up$node; sleep 60", lost_after_s=1.5, end_within_s=1.0)
    run, silent = LocalTransport.run, threading.Event()

    def run_or_not(self, host, script, timeout_s):
        if host.node == 2 and silent.is_set():
            raise Unreachable("i-2 does not answer")
        return run(self, host, script, timeout_s)

    monkeypatch.setattr(LocalTransport, "run", run_or_not)
    result = []
    thread = threading.Thread(target=lambda: result.append(run_gang(local, one)))
    thread.start()
    wait_for_all(tmp_path)
    silent.set()
    time.sleep(0.7)
    silent.clear()
    time.sleep(1.5)
    assert thread.is_alive()
    silent.set()
    thread.join(20)
    assert result[0].lost == {"i-2": "i-2 does not answer"}
    silent.clear()
    end_gang(local, one, 0.0)
    assert marked(one) == []


def test_a_heartbeat_that_stands_is_a_lost_host(gang, local, tmp_path):
    one = gang(f"touch {tmp_path}/up$node; sleep 60", lost_after_s=2.0, end_within_s=1.0)
    result = []
    thread = threading.Thread(target=lambda: result.append(run_gang(local, one)))
    thread.start()
    wait_for_all(tmp_path)
    # its script is stopped, as on a machine that swaps itself to death
    os.kill(marked(one, "0")[0], signal.SIGSTOP)
    thread.join(20)
    (end,) = result
    assert list(end.lost) == ["i-0"]
    assert "its heartbeat stands for" in end.lost["i-0"]
    assert marked(one) == []


@pytest.mark.parametrize(("trap", "grace_s", "ends"), [("exit 75", 20.0, True), ("", 1.0, False)])
def test_a_job_may_end_in_order_and_one_that_does_not_is_killed(
    gang, local, tmp_path, trap, grace_s, ends
):
    one = gang(f"trap '{trap}' TERM; touch {tmp_path}/up$node; while :; do sleep 0.1; done")
    threading.Thread(target=run_gang, args=(local, one), daemon=True).start()
    wait_for_all(tmp_path)
    start = time.monotonic()
    assert end_gang(local, one, grace_s) == []
    assert time.monotonic() - start < 15
    assert marked(one) == []
    codes = list((tmp_path / "gangs").glob("*/[0-2]/code"))
    assert {path.read_text() for path in codes} == ({"75\n"} if ends else set())
    assert end_gang(local, one) == []  # once more does nothing


def test_a_gang_that_cannot_start_says_why(gang, local):
    with pytest.raises(RunError, match=r"i-\d cannot start the job: there is no program /nowhere"):
        run_gang(local, Gang("three", HOSTS, (1, 1, 1), gang("").job, "/nowhere", "/tmp"))


@pytest.mark.parametrize("name", ["", "a b", "../up", "-x", "a" * 101])
def test_a_name_of_a_gang_is_one_word(name):
    with pytest.raises(ValueError, match="cannot be called"):
        Gang(name, HOSTS, (1, 1, 1), "job")


def test_the_scripts_of_a_gang_pass_shellcheck(tmp_path, gang):
    program = shellcheck()
    if program is None:
        pytest.skip("shellcheck is not installed")
    one = gang("")
    scripts = [
        gangs._starting(one, HOSTS[0]),
        gangs._looking(one, HOSTS[0]),
        gangs._ending(one, HOSTS[0], 5.0),
    ]
    for script in [*scripts, bounded("echo", 5.0)]:
        subprocess.run(
            [program, "-S", "style", "-s", "bash", "-"], input=script, text=True, check=True
        )
