"""SSH to three machines that are network namespaces, with real sshd, real keys and real links."""

import subprocess
import threading
import time
from dataclasses import replace

import pytest
from rented_hosts import why_not

from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.launch.ec2.hosts import Ended, Host, HostTransport, Unreachable, on_all
from byzshield_exp.launch.ec2.ssh import SshTransport, WrongHostKey, host_keys

pytest.importorskip("asyncssh", reason="asyncssh is not installed: the extra ssh")
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def test_it_is_a_transport(ssh):
    assert isinstance(ssh, HostTransport)


def test_a_script_runs_on_the_host_that_is_meant(ssh, machines):
    for host in machines.hosts:
        ended = ssh.run(host, "ip -br -4 address show eth0; echo wrong >&2; exit 3", 10.0)
        assert ended.code == 3
        assert host.address in ended.output
        assert ended.output.endswith("wrong\n")


def test_a_long_output_is_cut_and_a_long_script_ended(ssh, machines):
    ended = ssh.run(machines.hosts[0], "seq 100000", 10.0)
    assert len(ended.output) == 20_000
    assert ended.output.endswith("100000\n")
    assert ssh.run(machines.hosts[0], "echo begun; sleep 60", 1.0) == Ended(124, "begun\n")


def test_many_threads_share_a_connection(ssh, machines):
    many = [replace(machines.hosts[number % 3], name=str(number)) for number in range(24)]
    answers = on_all(many, lambda host: ssh.run(host, f"echo {host.name}", 20.0))
    assert [answer.output for answer in answers] == [f"{number}\n" for number in range(24)]
    log = (machines.folder / "log0").read_text()
    assert log.count("Accepted publickey") <= 4  # one per test so far


def test_files_go_there_and_come_back(ssh, machines, tmp_path):
    source = tmp_path / "file"
    source.write_bytes(bytes(range(256)) * 4000)
    ssh.send(machines.hosts[1], source, f"{tmp_path}/there/a b/file.bin")
    ssh.send(machines.hosts[1], source, f"{tmp_path}/there/a b/file.bin")  # again
    assert (tmp_path / "there/a b/file.bin").read_bytes() == source.read_bytes()
    assert ssh.run(machines.hosts[1], f"touch '{tmp_path}/there/status.json'", 5.0).code == 0
    ssh.fetch(machines.hosts[1], f"{tmp_path}/there", tmp_path / "came")
    came = sorted(
        str(path.relative_to(tmp_path / "came")) for path in (tmp_path / "came").rglob("*")
    )
    assert came == ["a b", "a b/file.bin", "status.json"]
    with pytest.raises(RunError, match="i-1: /nothing/here cannot be read"):
        ssh.fetch(machines.hosts[1], "/nothing/here", tmp_path / "came")
    with pytest.raises(RunError, match="i-1: "):
        ssh.send(machines.hosts[1], source, "/proc/cannot/be")


def test_a_host_that_sends_too_much_is_cut_off(ssh, machines, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/large").write_bytes(bytes(2_000_000))
    monkeypatch.setattr("byzshield_exp.launch.ec2.ssh.MAX_BYTES", 1_000_000)
    with pytest.raises(RunError, match="sends more than it may"):
        ssh.fetch(machines.hosts[0], f"{tmp_path}/there", tmp_path / "came")
    assert not (tmp_path / "came").exists()
    assert ssh.run(machines.hosts[0], "echo hello", 5.0).output == "hello\n"


@pytest.mark.parametrize("known", ["another host's", "none"])
def test_a_host_with_another_key_is_refused_before_anything_is_said(machines, known):
    first, second = machines.hosts[0], machines.hosts[1]
    keys = machines.known_hosts[second.reach] if known != "none" else []
    before = (machines.folder / "log0").read_text()
    transport = SshTransport({first.reach: keys}, "root", machines.user_key)
    try:
        with pytest.raises(WrongHostKey, match=r"i-0 .* is refused: its host key is none of the"):
            transport.run(first, "echo hello", 5.0)
    finally:
        transport.close()
    assert "Accepted" not in (machines.folder / "log0").read_text()[len(before) :]


def test_a_user_who_may_not_log_in_is_told(machines, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"])
    transport = SshTransport(machines.known_hosts, "root", tmp_path / "key")
    try:
        with pytest.raises(Unreachable, match="Permission denied"):
            transport.run(machines.hosts[0], "echo hello", 5.0)
    finally:
        transport.close()


def test_a_key_that_cannot_be_used_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"key=.*/none cannot be used"):
        SshTransport({}, "root", tmp_path / "none")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "sesame", "-f", tmp_path / "key"])
    with pytest.raises(ConfigError, match=r"key=.*/key cannot be used.*ssh-add"):
        SshTransport({}, "root", tmp_path / "key")


def test_nobody_at_an_address_is_unreachable(machines):
    nobody = Host("i-9", "10.77.255.9", machines.hosts[0].address.rpartition(".")[0] + ".9", 9)
    transport = SshTransport({nobody.reach: machines.known_hosts[machines.hosts[0].reach]}, "root")
    try:
        with pytest.raises(Unreachable, match=r"i-9 .* does not answer by ssh"):
            transport.run(nobody, "echo hello", 5.0)
    finally:
        transport.close()


@pytest.mark.slow
def test_a_host_that_goes_silent_is_noticed_and_found_again(ssh, machines):
    host = machines.hosts[2]
    assert ssh.run(host, "echo hello", 5.0).output == "hello\n"
    answers = []

    def ask() -> None:
        try:
            answers.append(ssh.run(host, "sleep 60", 60.0))
        except Unreachable as error:
            answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(1)
    start = time.monotonic()
    machines.unplug(2)
    try:
        thread.join(50)
        assert isinstance(answers[0], Unreachable)
        assert time.monotonic() - start < 30
    finally:
        machines.plug_in(2)
    assert ssh.run(host, "echo hello", 5.0).output == "hello\n"


def test_host_keys_are_read_from_a_console():
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO2NzZ6gqn8VdL"
    block = f"""\
[   12.3] cloud-init[1]: -----BEGIN SSH HOST KEY KEYS-----
ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAI= root@ip-10-0-0-1\r
{key} root@ip-10-0-0-1\r
-----END SSH HOST KEY KEYS-----
"""
    assert host_keys("booting\n") == []
    assert host_keys(f"booting\n{block}more ssh-rsa AAAA\n") == [
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAI=",
        key,
    ]
    assert host_keys(block.split("-----END")[0]) == []  # not whole yet
