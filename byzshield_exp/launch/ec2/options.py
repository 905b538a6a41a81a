"""A user's options for a fleet, checked before anything is looked up or created."""

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from beartype.door import is_bearable

from byzshield_exp.binding import did_you_mean
from byzshield_exp.errors import ConfigError

Market = Literal["spot", "on_demand"]
Way = Literal["ssm", "ssh", "local"]


@dataclass(frozen=True)
class Options:
    """The keys of ``hydra.launcher`` and of ``byzshield ec2``.

    Attributes:
        name: of the fleet, for its tags, its resources and the folder of its state.
        dry_run: print the plan, ask EC2 whether it would be allowed, create nothing.
        region: null: ``AWS_REGION``, ``AWS_DEFAULT_REGION`` or the profile's.
        zone: availability zone; null: that of the subnet.
        subnet: null: the default subnet of the zone, or the first default one.
        server_type: instance type of the parameter server.
        worker_type: instance type of the workers.
        workers: instances for workers.
        processes: worker processes on each of these instances.
        market: ``spot`` or ``on_demand``.
        reuse: whether a gang also does the next run; false: each run gets its own gang.
        gangs: gangs at the same time.
        ami: id of an image, or the SSM parameter that holds it.
        volume_gb: size of the root volume, encrypted gp3.
        instance_profile: its name; transport ssm, a bucket and EFS need one.
        transport: how this machine reaches the instances: ``ssm``, ``ssh`` or ``local`` (tests).
        ssh_from: with ssh: the only address that may connect, such as ``203.0.113.7/32``.
        ssh_key: with ssh: file of the private key, which stays here; null: the agent's keys.
        ssh_public_key: with ssh: file of the public key that the instances accept; null: the
            file of the private key with ``.pub``.
        ssh_user: with ssh: the user of the image.
        public_address: whether instances get one; otherwise the subnet needs NAT or endpoints.
        https_to: the network that instances may connect to on port 443 (packages, SSM, S3).
        efs: null, an id, or ``create``: the shared folder for data, checkpoints and results.
        bucket: ``s3://NAME/PREFIX`` for files to and from the instances; transport ssm needs it.
        wheel: of this package, which the instances install: a file here or ``s3://...whl``.
        wheel_sha256: checksum of the wheel; null: computed from the file here.
        pip_arguments: for installing the wheel; the default installs torch for CPUs, in the release
            of this machine unless one is named here (``torch==...``).
        usd_per_hour: price of a whole gang; null: looked up.
        max_usd: limit of the total cost; a plan that may cost more is refused.
        max_hours: after which everything ends; each instance also ends by itself.
        max_instances: limit of the instances at the same time.
        max_attempts: gangs that a run may lose (spot reclaim, no capacity, a dead host).
        retry_s: seconds before the next attempt.
        boot_minutes: time that an instance has to get ready.
        owner: value of the owner tag; null: the name of the AWS identity.
        output_dir: folder of the results, and of the fleet's state in ``ec2``.
    """

    name: str = "byzshield"
    dry_run: bool = True
    region: str | None = None
    zone: str | None = None
    subnet: str | None = None
    server_type: str = "c7i.xlarge"
    worker_type: str = "c7i.xlarge"
    workers: int = 2
    processes: int = 2
    market: Market = "spot"
    reuse: bool = True
    gangs: int = 1
    ami: str = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    volume_gb: int = 40
    instance_profile: str | None = None
    transport: Way = "ssm"
    ssh_from: str | None = None
    ssh_key: str | None = None
    ssh_public_key: str | None = None
    ssh_user: str = "ec2-user"
    public_address: bool = True
    https_to: str = "0.0.0.0/0"
    efs: str | None = None
    bucket: str | None = None
    wheel: str | None = None
    wheel_sha256: str | None = None
    pip_arguments: str = "--extra-index-url https://download.pytorch.org/whl/cpu"
    usd_per_hour: float | None = None
    max_usd: float = 5.0
    max_hours: float = 2.0
    max_instances: int = 8
    max_attempts: int = 3
    retry_s: float = 30.0
    boot_minutes: float = 15.0
    owner: str | None = None
    output_dir: str = "outputs"

    def __post_init__(self) -> None:
        for check in (_check_numbers, _check_names, _check_transport, _check_addresses):
            check(self)

    @property
    def gang_instances(self) -> int:
        """The number of instances of a gang."""
        return 1 + self.workers

    @property
    def world_size(self) -> int:
        """The number of processes of a gang: the server and those of the workers."""
        return 1 + self.workers * self.processes


def options_of(values: Mapping[str, Any]) -> Options:
    """Check plain values and make options of them.

    Raises:
        ConfigError: if a key is unknown or a value is wrong.
    """
    hints = get_type_hints(Options)
    for key, value in values.items():
        if key not in hints:
            near = did_you_mean(key, list(hints))
            raise ConfigError(f"{key}={value!r}: unknown key, there are {', '.join(hints)}{near}")
    whole: dict[str, Any] = {
        key: float(value) if type(value) is int and is_bearable(1.5, hints[key]) else value
        for key, value in values.items()
    }
    for key, value in whole.items():
        if not is_bearable(value, hints[key]) or (type(value) is bool and hints[key] is not bool):
            raise ConfigError(f"{key}={value!r} must be {_type_name(hints[key])}")
    return Options(**whole)


def plain(options: Options) -> dict[str, Any]:
    """Return options as the plain values that :func:`options_of` takes."""
    return dataclasses.asdict(options)


def _type_name(hint: Any) -> str:
    if getattr(hint, "__name__", "") == "Literal" or get_args(hint)[:1] == ("spot",):
        return f"one of {', '.join(get_args(hint))}"
    return " or ".join(
        "null" if part is type(None) else part.__name__ for part in get_args(hint) or (hint,)
    )


def _check_numbers(options: Options) -> None:
    lowest = {"workers": 1, "processes": 1, "gangs": 1, "max_attempts": 1, "volume_gb": 8}
    for key, low in lowest.items():
        if getattr(options, key) < low:
            raise ConfigError(f"{key}={getattr(options, key)} must be at least {low}")
    for key in ("max_usd", "max_hours", "boot_minutes", "usd_per_hour"):
        value = getattr(options, key)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{key}={value} must be above 0")
    if not 0 <= options.retry_s < float("inf"):
        raise ConfigError(f"retry_s={options.retry_s} must be at least 0")
    instances = options.gangs * options.gang_instances
    if instances > options.max_instances:
        raise ConfigError(
            f"max_instances={options.max_instances}: {options.gangs} gang(s) of 1 server and "
            f"{options.workers} workers are {instances} instances"
        )


def _check_names(options: Options) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", options.name):
        raise ConfigError(
            f"name={options.name!r} must be lower-case letters, digits and hyphens, at most 31"
        )
    if not re.fullmatch(r"ami-[0-9a-f]+|/[\w./-]+", options.ami):
        raise ConfigError(f"ami={options.ami!r} must be ami-... or the path of an SSM parameter")
    if options.efs is not None and not re.fullmatch(r"create|fs-[0-9a-f]+", options.efs):
        raise ConfigError(f"efs={options.efs!r} must be null, create or fs-...")
    bucket = options.bucket
    if bucket is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[\w./-]*)?", bucket):
        raise ConfigError(f"bucket={bucket!r} must be s3://NAME/PREFIX")


def _check_transport(options: Options) -> None:
    if (options.wheel or "").startswith("s3://") and options.wheel_sha256 is None:
        raise ConfigError(f"wheel_sha256 is not given: wheel={options.wheel} is not here")
    if options.transport == "ssm":
        for key in ("instance_profile", "bucket"):
            if getattr(options, key) is None:
                raise ConfigError(f"{key} is not given: transport=ssm needs it")
    if (options.transport == "ssh") != (options.ssh_from is not None):
        need = "needs it" if options.transport == "ssh" else "opens no port"
        raise ConfigError(f"ssh_from={options.ssh_from}: transport={options.transport} {need}")
    if options.transport == "ssh" and not (options.ssh_key or options.ssh_public_key):
        raise ConfigError("ssh_key is not given, nor ssh_public_key: instances must let one in")
    if options.transport != "local" and options.wheel is None:
        raise ConfigError("wheel is not given; python -m build --wheel makes one in dist")
    if options.efs is not None and options.instance_profile is None:
        raise ConfigError(f"efs={options.efs}: needs an instance_profile that may mount it")


def _check_addresses(options: Options) -> None:
    for key in ("ssh_from", "https_to"):
        value = getattr(options, key)
        if value is None:
            continue
        try:
            network = ipaddress.IPv4Network(value)
        except ValueError as error:
            raise ConfigError(f"{key}={value!r} is no IPv4 network: {error}") from error
        if key == "ssh_from" and network.prefixlen != 32:
            raise ConfigError(f"ssh_from={value} must be one address, with /32")
