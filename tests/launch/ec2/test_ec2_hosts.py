"""The host side of the EC2 launcher, on folders of this machine: scripts, files and gangs."""

import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rented_hosts import marked, shellcheck

from byzshield_exp.errors import RunError, first_line
from byzshield_exp.launch.ec2 import archive as archives
from byzshield_exp.launch.ec2 import gang as gangs
from byzshield_exp.launch.ec2.archive import unpack
from byzshield_exp.launch.ec2.gang import Gang, end_gang, run_gang
from byzshield_exp.launch.ec2.hosts import Ended, Host, HostTransport, Unreachable, bounded, on_all
from byzshield_exp.launch.ec2.local import LocalTransport
from byzshield_exp.launch.ec2.ssm import SsmTransport

pytestmark = pytest.mark.slow  # together they take minutes

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
    assert isinstance(local, HostTransport)
    assert issubclass(SsmTransport, HostTransport)


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
    assert local.run(HOSTS[0], "echo begun; sleep 250", 3.0) == Ended(124, "begun\n")


def test_what_a_script_leaves_running_holds_nothing_up(local):
    ended = local.run(HOSTS[0], "setsid sleep 250 & echo $!", 60.0)
    os.kill(int(ended.output), signal.SIGKILL)  # it is still there


def test_a_script_does_not_appear_among_the_processes(local):
    word = "sesame-in-a-script"
    script = f"x={word}; sleep 241; true"
    thread = threading.Thread(target=local.run, args=(HOSTS[0], script, 250.0))
    thread.start()
    asleep = None
    while asleep is None:
        listed = subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout
        asleep = re.search(r"^ *(\d+) .* sleep 241$", listed, flags=re.MULTILINE)
    os.kill(int(asleep[1]), signal.SIGKILL)
    thread.join()
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


def lay_down(archive: bytes, target: Path) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        unpack(file, target)


def archive_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """What a host sends."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as content:
        for entry, data in entries:
            content.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def entry(name: str, data: bytes = b"", **settings) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in settings.items():
        setattr(made, key, value)
    return made, data


@pytest.mark.parametrize(
    "odd",
    [
        entry("../outside", b"x"),
        entry("inside/../../outside", b"x"),
        entry("/outside", b"x"),
        entry("..", type=tarfile.DIRTYPE),
        entry("link", type=tarfile.SYMTYPE, linkname="a"),
        entry("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("link", type=tarfile.LNKTYPE, linkname="a"),
        entry("pipe", type=tarfile.FIFOTYPE),
        entry("disk", type=tarfile.BLKTYPE),
        entry("a/under a file", b"x"),
        entry("ful\0l", b"x", pax_headers={"path": "nul\0l"}),
        entry("sparse", b"x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
        entry("b" * 300, b"x"),
    ],
)
def test_an_archive_of_anything_but_plain_files_of_its_folder_is_refused(tmp_path, odd):
    with pytest.raises(RunError, match=r"what .*/inside should hold"):
        lay_down(archive_of(entry("a", b"1"), odd), tmp_path / "inside")
    assert [path for path in tmp_path.rglob("*") if path.name != "inside"] == []


def test_a_damaged_archive_is_told(tmp_path):
    whole = archive_of(entry("a", b"1" * 2000), entry("b", b"2"))
    deep = b"".join(tarfile.TarInfo.create_pax_global_header({"a": "b"}) for _ in range(2000))
    for archive in (b"no archive" * 200, whole[:1500], deep + whole):
        with pytest.raises(RunError, match=r"should hold came damaged"):
            lay_down(archive, tmp_path / "inside")


def test_an_archive_may_claim_any_time_and_mode(tmp_path):
    odd = entry("a", b"1", mtime=1e30, mode=0, uid=7)
    lay_down(archive_of(odd, entry("c", type=tarfile.DIRTYPE, mode=0)), tmp_path)
    assert (tmp_path / "a").read_bytes() == b"1"


def test_an_archive_is_bounded(tmp_path, monkeypatch):
    many = archive_of(entry("a", b"1" * 60), entry("b", b"2" * 60))
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    with pytest.raises(RunError, match="it is too large"):
        lay_down(many, tmp_path / "inside")
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 1)
    with pytest.raises(RunError, match="it is too large"):
        lay_down(many, tmp_path / "inside")
    assert list(tmp_path.rglob("*")) == []


def test_files_that_cannot_be_put_in_their_place_are_told(tmp_path):
    (tmp_path / "inside/a/b").mkdir(parents=True)
    with pytest.raises(RunError, match=r"inside should hold cannot be written: .*directory"):
        lay_down(archive_of(entry("a", b"1")), tmp_path / "inside")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file should hold cannot be written"):
        lay_down(archive_of(entry("a", b"1")), tmp_path / "file")


def test_what_a_host_says_commands_no_terminal(local):
    said = local.run(
        HOSTS[0], r"printf 'a\033]0;b\007\tc\302\233\r\n\342\200\256'; exit 1", 5.0
    ).output
    assert said == "a\ufffd]0;b\ufffd\tc\ufffd\ufffd\n\ufffd"
    assert first_line(RuntimeError("a\033[2J\nb")) == "a\ufffd[2J"


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


def test_a_gang_runs_on_all_hosts(gang, local, tmp_path):
    one = gang(f"""
        mkdir -p {tmp_path}/run
        echo "{{}}" > {tmp_path}/run/status.json
        echo "node $node of $*"
    """)
    end = run_gang(local, one)
    assert (end.code, end.codes, end.lost) == (0, {"i-0": 0, "i-1": 0, "i-2": 0}, {})
    assert "node 0 of --node-rank 0 --nproc-per-node 2 --master-addr 127.0.0.1" in end.output
    assert (tmp_path / "run/status.json").exists()


def test_a_gang_that_runs_is_found_again_and_not_started_twice(gang, local, tmp_path):
    one = gang(f"echo $node >> {tmp_path}/starts; touch {tmp_path}/up$node; sleep 2")
    code = (
        "import sys, pickle; from byzshield_exp.launch.ec2.gang import run_gang;"
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
    one = gang(f"touch {tmp_path}/up$node; sleep 60", lost_after_s=4.0, end_within_s=1.0)
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


@pytest.mark.parametrize(
    "answer", ["", "ended", "ended ", "ended none", "running", "running x", "running 1 2", "well"]
)
def test_an_odd_answer_is_nothing_of_use(gang, answer):
    status = gangs._HostStatus(0.0)
    why = gangs._parse_answer(Ended(0, f"{answer}\n"), status, gang(""))
    assert why == f"it answers nothing of use: {answer.strip()}"
    assert status.code is None


class Metadata(BaseHTTPRequestHandler):
    """What IMDSv2 tells an instance: nothing without a token, and 404 while it may stay."""

    is_reclaimed = threading.Event()

    def do_PUT(self) -> None:
        is_asked = self.path == "/latest/api/token"
        is_asked &= 1 <= int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600
        self.reply(200 if is_asked else 400, b"sesame")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "sesame":
            self.reply(401, b"")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.is_reclaimed.is_set():
            self.reply(200, b'{"action": "terminate", "time": "2030-01-01T00:00:00Z"}')
        else:
            self.reply(404, b"")

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata():
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/latest"
        server.shutdown()
    Metadata.is_reclaimed.clear()


def test_an_instance_that_is_taken_back_ends_its_gang_in_order(gang, local, tmp_path, metadata):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    one = gang(
        f"trap 'touch {tmp_path}/saved$node; exit 75' TERM; touch {tmp_path}/up$node;"
        " while :; do sleep 0.1; done",
        metadata=metadata,
    )
    result = []
    thread = threading.Thread(target=lambda: result.append(run_gang(local, one)))
    thread.start()
    wait_for_all(tmp_path)
    time.sleep(1)
    assert thread.is_alive()
    Metadata.is_reclaimed.set()
    thread.join(30)
    assert set(result[0].lost.values()) == {"EC2 takes it back in two minutes"}
    assert len(list(tmp_path.glob("saved[0-2]"))) == 3
    assert marked(one) == []


@pytest.mark.parametrize(("trap", "grace_s", "ends"), [("exit 75", 250.0, True), ("", 1.0, False)])
def test_a_job_may_end_in_order_and_one_that_does_not_is_killed(
    gang, local, tmp_path, trap, grace_s, ends
):
    one = gang(f"trap '{trap}' TERM; touch {tmp_path}/up$node; while :; do sleep 0.1; done")
    threading.Thread(target=run_gang, args=(local, one), daemon=True).start()
    wait_for_all(tmp_path)
    assert end_gang(local, one, grace_s) == []
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
        gangs._start_script(one, HOSTS[0]),
        gangs._poll_script(one, HOSTS[0]),
        gangs._poll_script(replace(one, metadata="http://127.0.0.1/latest"), HOSTS[0]),
        gangs._end_script(one, HOSTS[0], 5.0),
    ]
    for script in [*scripts, bounded("echo", 5.0)]:
        subprocess.run(
            [program, "-S", "style", "-s", "bash", "-"], input=script, text=True, check=True
        )
