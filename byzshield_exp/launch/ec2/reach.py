"""Paths on the hosts, and the transport that reaches them."""

import math
import os
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byzshield_exp.errors import RunError
from byzshield_exp.files import expand_user, write_atomically
from byzshield_exp.launch.ec2.bootstrap import Bootstrap
from byzshield_exp.launch.ec2.cloud import aws_errors
from byzshield_exp.launch.ec2.facts import Facts
from byzshield_exp.launch.ec2.hosts import Host, HostTransport
from byzshield_exp.launch.ec2.local import LocalTransport
from byzshield_exp.launch.ec2.options import Options
from byzshield_exp.launch.ec2.resources import Control
from byzshield_exp.launch.ec2.wheel import with_torch

LOCAL_PYTHON = sys.executable
MOUNT_POINT = "/mnt/byzshield"
_OWN_DISK = "/var/tmp/byzshield"
_BOOTSTRAP_FOLDER = "/opt/byzshield"
_METADATA_URL = "http://169.254.169.254/latest"  # link-local: each instance sees only its own


@dataclass(frozen=True)
class Place:
    """Folders and programs on the hosts.

    Attributes:
        python: interpreter of the environment with this package.
        jobs: folder of job files.
        gangs: folder of the gangs' own files.
        outputs: folder of results; one per output_dir of the driver.
        data: folder of data sets.
        is_shared: whether all hosts see the same folders.
        port: for torchrun's rendezvous.
        look_every_s: between two polls of a run.
        metadata: address of the service that announces the reclaim of a spot instance; None for
            instances that are not reclaimed.
    """

    python: str
    jobs: str
    gangs: str
    outputs: str
    data: str
    is_shared: bool
    port: int
    look_every_s: float
    metadata: str | None


def place_of(control: Control) -> Place:
    """Return the folders and programs on a fleet's hosts."""
    options = control.state.options
    outputs = f"outputs/{_name_on_hosts(control.store.folder.parent)}"
    if options.transport == "local":
        root = str(_local_root(control))
        return _make_place(root, LOCAL_PYTHON, outputs, True, _free_port(), 0.2, None)
    root = MOUNT_POINT if options.efs is not None else _OWN_DISK
    python = f"{_BOOTSTRAP_FOLDER}/venv/bin/python"
    metadata = _METADATA_URL if options.market == "spot" else None
    return _make_place(root, python, outputs, options.efs is not None, 29500, 5.0, metadata)


def _name_on_hosts(folder: Path) -> str:
    """Return the name of an output_dir's results on the hosts; it is drawn once, kept in a file.

    So it stays the same when the folder is renamed, and no two output_dirs share one.
    """
    path = folder / "name_on_hosts"
    if not path.exists():
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", folder.resolve().parent.name)
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".name.{secrets.token_hex(8)}"
        draft.write_text(f"{readable[:50]}-{secrets.token_hex(8)}")
        with suppress(FileExistsError):  # another driver was faster: its name counts
            os.link(draft, path)
        draft.unlink()
    return path.read_text()


def _make_place(root: str, python: str, outputs: str, *more: Any) -> Place:
    folders = (f"{root}/jobs", f"{root}/gangs", f"{root}/{outputs}", f"{root}/data")
    return Place(python, *folders, *more)


def _local_root(control: Control) -> Path:
    return control.store.folder.resolve() / "hosts"


def bootstrap_of(options: Options, facts: Facts, efs: str | None, minutes: int) -> Bootstrap:
    """Return what an instance needs to prepare itself at its first start."""
    return Bootstrap(
        max_minutes=minutes,
        wheel=wheel_there(options, facts),
        wheel_sha256=facts.wheel_sha256,
        efs=efs,
        mount_point=MOUNT_POINT,
        region=facts.region,
        user=options.ssh_user,
        folder=_BOOTSTRAP_FOLDER,
        pip_arguments=with_torch(shlex.split(options.pip_arguments)),
        authorized_keys=() if facts.public_key is None else (facts.public_key,),
        wheel_within_minutes=math.ceil(options.boot_minutes),
    )


def wheel_there(options: Options, facts: Facts) -> str:
    """Return where an instance finds the wheel: in S3, or where this machine sends it."""
    wheel = options.wheel or "none.whl"
    if wheel.startswith("s3://"):
        return wheel
    return f"{_OWN_DISK}/{facts.wheel_sha256[:16]}/{Path(wheel).name}"


def transport_to(
    control: Control, hosts: list[Host], check: Callable[[], None] = lambda: None
) -> HostTransport:
    """Return a transport to some hosts.

    Args:
        control: of their fleet.
        hosts: the hosts.
        check: called while host keys are awaited; raises to end the wait.

    Raises:
        RunError: if their host keys are not known in time.
    """
    options = control.state.options
    if options.transport == "local":
        return LocalTransport(_local_root(control))
    if options.transport == "ssm":
        from byzshield_exp.launch.ec2.ssm import SsmTransport

        return SsmTransport(options.bucket, control.cloud.region, options.ssh_user)
    from byzshield_exp.launch.ec2.ssh import SshTransport

    keys = {host.reach: _host_keys(control, host, check) for host in hosts}
    lines = [f"{reach} {public}\n" for reach, found in keys.items() for public in found]
    write_atomically(known_hosts(control, hosts[0]), "".join(lines).encode())
    key = None if options.ssh_key is None else expand_user(options.ssh_key)
    return SshTransport(keys, options.ssh_user, key)


def known_hosts(control: Control, server: Host) -> Path:
    """Return the path of the file with a gang's host keys, for ssh."""
    return control.store.folder / f"known_hosts-{server.name}"


def _host_keys(control: Control, host: Host, check: Callable[[], None]) -> list[str]:
    """Return the host keys that an instance printed on its console, which only EC2 can show."""
    from byzshield_exp.launch.ec2.ssh import host_keys

    for _ in range(max(1, round(control.state.options.boot_minutes * 12))):
        with aws_errors():
            console = control.cloud.ec2.get_console_output(InstanceId=host.name, Latest=True)
        found = host_keys(console.get("Output", ""))
        if found:
            return found
        check()
        control.pause(5)
    raise RunError(f"{host.name} printed no host keys on its console")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
