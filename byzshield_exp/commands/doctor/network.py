"""The network: this machine's name and address, and the way to the server."""

import os
import socket
import threading

import psutil

from byzshield_exp.clusters.fingerprint import host_name
from byzshield_exp.commands.doctor.finding import Finding

_ELSEWHERE = "192.0.2.1"  # reserved for documentation (RFC 5737); no packet is sent to it
_PATIENCE_S = 2.0


def own_name() -> Finding:
    """Check what this machine's name resolves to; on Debian it is often 127.0.1.1."""
    name = host_name()
    addresses = _addresses(name)
    if not addresses:
        advice = (
            "for several machines give MASTER_ADDR as an address, or add the name to /etc/hosts"
        )
        return Finding("name", "note", f"{name} does not resolve here", advice)
    said = f"{name} is {', '.join(addresses)}"
    if any(_is_local(address) for address in addresses):
        advice = (
            "a loopback address: fine on one machine; for several give MASTER_ADDR as the "
            "server's address, or as a name that all of them resolve to it"
        )
        return Finding("name", "note", said, advice)
    return Finding("name", "ok", said)


def address() -> Finding:
    """Find the address that other machines would use, and try a connection to it."""
    own = _source(_ELSEWHERE)
    if own is None or _is_local(own):
        advice = "give this machine an address for runs over several machines"
        return Finding("address", "note", "no way to other machines", advice)
    said = f"{own} on {_interface(own)}"
    wrong = _connect_to_self(own)
    if wrong:
        advice = "a firewall on this machine? Ports of the server are free ones, from 1024 on"
        return Finding("address", "problem", f"{said}: {wrong}", advice)
    return Finding("address", "ok", f"{said}, connections to it work")


def master() -> Finding:
    """Check the way to the server that ``MASTER_ADDR`` names."""
    name, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if not name:
        return Finding("master", "ok", "MASTER_ADDR is not set: only needed without torchrun")
    addresses = _addresses(name)
    if not addresses:
        advice = "give an address, or a name that all machines resolve"
        return Finding("master", "problem", f"MASTER_ADDR={name} does not resolve", advice)
    target = addresses[0]
    own = _source(target)
    said = f"MASTER_ADDR={name} is {target}"
    if _is_local(target):
        return _loopback_master(said)
    if own is None:
        return Finding("master", "problem", f"{said}: no route", "put all machines in one network")
    if own == target:
        wrong = _connect_to_self(own)
        state = Finding("master", "problem", f"{said}, this machine: {wrong}", "see address")
        return state if wrong else Finding("master", "ok", f"{said}, this machine")
    return _remote_master(f"{said}, reached from {own} on {_interface(own)}", target, port)


def _remote_master(said: str, target: str, port: str) -> Finding:
    """Report a server on another machine; connect to it if its port is known."""
    if not port.isdigit():
        return Finding("master", "ok", said)
    wrong = _dial(target, int(port))
    if wrong == "refused":
        return Finding("master", "ok", f"{said}; port {port} is not open yet")
    if wrong:
        advice = "let the machines of a run connect to each other on all ports"
        return Finding("master", "problem", f"{said}; port {port}: {wrong}", advice)
    return Finding("master", "ok", f"{said}; port {port} answers")


def _loopback_master(said: str) -> Finding:
    ranks, here = (os.environ.get(name) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    advice = "fine on one machine; for several give the server's address instead"
    is_several = ranks is not None and here is not None and ranks != here
    return Finding("master", "problem" if is_several else "note", said, advice)


def _interface(own: str) -> str:
    return interface_of(own) or "an unknown interface"


def interface_of(own: str) -> str | None:
    """Return the name of the interface that has an address."""
    for name, entries in psutil.net_if_addrs().items():
        # the address of an IPv6 link is followed by % and its interface
        if any(entry.address.partition("%")[0] == own for entry in entries):
            return name
    return None


def _addresses(name: str) -> list[str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _is_local(own: str) -> bool:
    return own.startswith("127.") or own == "::1"


def _source(target: str) -> str | None:
    """Return the address that packets to a target would come from; none is sent."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _connect_to_self(own: str) -> str:
    """Say what is wrong with a connection to this machine's address; empty if nothing is."""
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    try:
        with socket.create_server((own, 0), family=family) as door:
            door.settimeout(_PATIENCE_S)
            answers = threading.Thread(target=_greet, args=(door,), daemon=True)
            answers.start()
            with socket.create_connection(door.getsockname()[:2], timeout=_PATIENCE_S) as line:
                greeting = line.recv(1)
            answers.join(_PATIENCE_S)
    except OSError as error:
        return error.strerror or str(error)
    return "" if greeting else "the connection closes"


def _greet(door: socket.socket) -> None:
    try:
        line, _ = door.accept()
        with line:
            line.sendall(b"!")
    except OSError:
        return  # _connect_to_self sees and reports it


def _dial(target: str, port: int) -> str:
    try:
        with socket.create_connection((target, port), timeout=_PATIENCE_S):
            return ""
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return error.strerror or str(error)
