"""Machines for tests: network namespaces on a bridge, each with its own sshd and host key."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from byzshield_exp.launch.ec2.gang import Gang
from byzshield_exp.launch.ec2.hosts import Host

_SSHD = """\
Port 22
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {keys}
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
LogLevel VERBOSE
"""


@dataclass(frozen=True)
class Network:
    """What the tests know of their machines.

    Attributes:
        hosts: the machines; ``reach`` and ``address`` are the same.
        known_hosts: their public keys.
        user_key: the private key that logs in as root.
        folder: their shared disk; ``log<node>`` is what an sshd wrote.
        namespaces: per host.
        links: per host its end at the bridge.
    """

    hosts: tuple[Host, ...]
    known_hosts: dict[str, list[str]]
    user_key: Path
    folder: Path
    namespaces: tuple[str, ...]
    links: tuple[str, ...]

    def unplug(self, node: int) -> None:
        """Take a host's link down: packets are lost, nobody is told."""
        _do("ip", "link", "set", self.links[node], "down")

    def plug_in(self, node: int) -> None:
        """Bring it up again."""
        _do("ip", "link", "set", self.links[node], "up")


def why_not() -> str:
    """What is missing for network namespaces with sshd; empty where nothing is."""
    missing = [name for name in ("ssh-keygen", "sshd") if _program(name) is None]
    return f"{', '.join(missing)} is not installed" if missing else why_no_namespaces()


@cache
def why_no_namespaces() -> str:
    """What is missing for network namespaces; empty where nothing is."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if _program("ip") is None:
        return "ip is not installed"
    trial = f"byz{os.getpid()}try"
    for command in (
        ["ip", "link", "add", trial, "type", "bridge"],
        ["ip", "link", "delete", trial],
        ["ip", "netns", "add", trial],
        ["ip", "netns", "delete", trial],
    ):
        if subprocess.run(command, capture_output=True).returncode:
            return f"{' '.join(command[:3])} does not work here"
    return ""


@contextmanager
def namespaces_on_a_bridge(count: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Bring up namespaces ``10.77.x.1``, ``.2`` ...; this machine is ``10.77.x.254``.

    Yields:
        The name of the bridge, and name and address of each namespace.
    """
    name = f"byz{os.getpid()}"
    subnet = f"10.77.{_free_subnet()}"
    made = [(f"{name}n{node}", f"{subnet}.{node + 1}") for node in range(count)]
    try:
        _do("ip", "link", "add", name, "type", "bridge")
        _do("ip", "address", "add", f"{subnet}.254/24", "dev", name)
        _do("ip", "link", "set", name, "up")
        for node, (namespace, address) in enumerate(made):
            _make_namespace(name, namespace, f"{name}v{node}", address)
        yield name, made
    finally:
        _take_down(name, [namespace for namespace, _ in made])


@contextmanager
def network(folder: Path, count: int = 3) -> Iterator[Network]:
    """Bring up machines with sshd, each in a namespace."""
    servers: list[subprocess.Popen[bytes]] = []
    made_run = not Path("/run/sshd").exists()
    Path("/run/sshd").mkdir(exist_ok=True)
    with namespaces_on_a_bridge(count) as (name, made):
        try:
            namespaces = tuple(namespace for namespace, _ in made)
            links = tuple(f"{name}v{node}" for node in range(count))
            _make_key(folder / "user_key")
            known_hosts, hosts = {}, []
            for node, (_, address) in enumerate(made):
                server, key = _start_sshd(folder, node, namespaces[node], address)
                servers.append(server)
                known_hosts[address] = [key]
                hosts.append(Host(f"i-{node}", address, address, node))
            for host in hosts:
                _wait_for_port(host.address)
            yield Network(tuple(hosts), known_hosts, folder / "user_key", folder, namespaces, links)
        finally:
            for server in servers:
                server.kill()
                server.wait()
            if made_run:
                with suppress(OSError):
                    Path("/run/sshd").rmdir()


def marked(gang: Gang, node: str = "") -> list[int]:
    """What runs of a gang, on all hosts or on one; the oldest first."""
    mark = f"BYZSHIELD_GANG={gang.name}/{node}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
    return sorted(found)


def shellcheck() -> str | None:
    """The program, beside Python or in the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return shutil.which("shellcheck", path=path)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _do(*command: str) -> None:
    subprocess.run([str(_program(command[0])), *command[1:]], check=True)


def _free_subnet() -> int:
    taken = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True).stdout
    free = [number for number in range(256) if f"10.77.{number}.0/24" not in taken]
    return random.choice(free)  # another test may look at the same time


def _make_key(path: Path) -> str:
    _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path))
    return path.with_suffix(".pub").read_text().strip()


def _make_namespace(bridge: str, namespace: str, link: str, address: str) -> None:
    inside = ("ip", "-netns", namespace)
    _do("ip", "netns", "add", namespace)
    _do("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _do("ip", "link", "set", link, "master", bridge, "up")
    _do(*inside, "address", "add", f"{address}/24", "dev", "eth0")
    _do(*inside, "link", "set", "eth0", "up")
    _do(*inside, "link", "set", "lo", "up")


def _start_sshd(
    folder: Path, node: int, namespace: str, address: str
) -> tuple[subprocess.Popen[bytes], str]:
    own = folder / f"sshd{node}"
    own.mkdir()
    key = _make_key(own / "host_key")
    config = own / "config"
    config.write_text(_SSHD.format(address=address, folder=own, keys=folder / "user_key.pub"))
    command = ["ip", "netns", "exec", namespace, str(_program("sshd"))]
    command += ["-D", "-f", str(config), "-E", str(folder / f"log{node}")]
    return subprocess.Popen(command), key


def _wait_for_port(address: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        with suppress(OSError), socket.create_connection((address, 22), timeout=1):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"no sshd at {address}")
        time.sleep(0.05)


def _take_down(name: str, namespaces: Sequence[str]) -> None:
    """End what runs in the namespaces, which are ours alone, and remove them and the bridge."""
    for namespace in namespaces:
        inside = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
        for process in inside.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
    for link in [name, *(f"{name}v{node}" for node in range(len(namespaces)))]:
        subprocess.run(["ip", "link", "delete", link], capture_output=True)
