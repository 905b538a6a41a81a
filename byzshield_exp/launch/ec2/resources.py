"""Create and delete a fleet's resources; each step may be repeated after a crash.

A step first looks by tag or by token for what an earlier attempt made, so it does not matter
whether the answer to a call arrived.
"""

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.launch.ec2 import requests
from byzshield_exp.launch.ec2.cloud import Cloud, code, pages, tagged
from byzshield_exp.launch.ec2.options import Options
from byzshield_exp.launch.ec2.state import GangState, Part, State, Store

_SETTLE_S = 10.0  # until describe_instances surely shows a new instance
_LIVE = ["pending", "running", "stopping", "stopped"]
_DELAY_S = 5
_ATTEMPTS = 120
_MAX_GROUPS = 5  # per network interface: the default quota


@dataclass(frozen=True)
class Control:
    """What a driver holds of its fleet: the state, its file and the clients.

    Attributes:
        state: of the fleet; changed under ``store.lock``.
        store: the file of the state.
        cloud: the clients of AWS.
        pause: waits some seconds.
    """

    state: State
    store: Store
    cloud: Cloud
    pause: Callable[[float], object] = time.sleep

    def save(self) -> None:
        """Write the state."""
        self.store.save(self.state)

    @property
    def common_tags(self) -> dict[str, str]:
        """The tags of everything that ends with the fleet."""
        state = self.state
        return requests.fleet_tags(state.fleet, state.options, state.facts, state.deadline)


def ensure_network(control: Control) -> None:
    """Create the security group and the shared folder where they are missing."""
    state, options, facts = control.state, control.state.options, control.state.facts
    if options.efs is not None:
        ensure_shared(control)
    request = requests.create_group(state.fleet, facts, control.common_tags)
    group = ensure_group(control.cloud, request)
    tags = requests.tags(**control.common_tags)
    inbound, outbound = requests.inbound(group, options), requests.outbound(group, options)
    _set_rules(control.cloud, group, inbound, outbound, tags)
    state.group = group
    control.save()


def ensure_group(cloud: Cloud, request: dict[str, Any]) -> str:
    """Find a security group by its name in the VPC, or create it; return its id."""
    filters = [
        {"Name": "group-name", "Values": [request["GroupName"]]},
        {"Name": "vpc-id", "Values": [request["VpcId"]]},
    ]
    found = pages(cloud.ec2, "describe_security_groups", "SecurityGroups", Filters=filters)
    if not found:
        with _ignoring("InvalidGroup.Duplicate"):
            return str(cloud.ec2.create_security_group(**request)["GroupId"])
        found = pages(cloud.ec2, "describe_security_groups", "SecurityGroups", Filters=filters)
    return str(found[0]["GroupId"])


def _set_rules(
    cloud: Cloud,
    group: str,
    inbound: set[requests.Rule],
    outbound: set[requests.Rule],
    tags: list[dict[str, str]],
) -> None:
    """Add missing rules to a group and remove all others."""
    ec2 = cloud.ec2
    ec2.get_waiter("security_group_exists").wait(GroupIds=[group])
    (there,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    tagging = [{"ResourceType": "security-group-rule", "Tags": tags}]
    ways = (
        ("ingress", inbound, requests.rules_of(there["IpPermissions"])),
        ("egress", outbound, requests.rules_of(there["IpPermissionsEgress"])),
    )
    for way, wanted, present in ways:
        for rule in sorted(present - wanted):
            revoke = getattr(ec2, f"revoke_security_group_{way}")
            with _ignoring("InvalidPermission.NotFound"):
                revoke(GroupId=group, IpPermissions=[requests.permission(rule)])
        if wanted - present:
            permissions = [requests.permission(rule) for rule in sorted(wanted - present)]
            authorize = getattr(ec2, f"authorize_security_group_{way}")
            with _ignoring("InvalidPermission.Duplicate"):
                authorize(GroupId=group, IpPermissions=permissions, TagSpecifications=tagging)


@contextmanager
def _ignoring(*codes: str) -> Iterator[None]:
    """Ignore errors that say an earlier call, whose answer was lost, did the work already."""
    try:
        yield
    except ClientError as error:
        if code(error) not in codes:
            raise


def ensure_shared(control: Control) -> None:
    """Create the shared folder and its mount target where missing; record the groups to join.

    Raises:
        ConfigError: if an existing folder cannot be reached in the zone, or its mount target is
            open to the world.
    """
    state, options, facts = control.state, control.state.options, control.state.facts
    efs = control.cloud.efs
    if options.efs == "create":
        state.efs = _shared_folder(control)
        group = ensure_group(control.cloud, requests.create_shared_group(options, facts))
        rules = requests.shared_rules(group)
        _set_rules(control.cloud, group, rules, rules, requests.shared_tags(options, facts))
    else:
        state.efs, group = str(options.efs), ""
    control.save()
    if group and _mount_target(control.cloud, state.efs, facts.zone) is None:
        with _ignoring("MountTargetConflict"):
            efs.create_mount_target(
                FileSystemId=state.efs, SubnetId=facts.subnet, SecurityGroups=[group]
            )
    state.efs_groups = groups_to_join(control.cloud, state.efs, facts.zone, options)

    def is_available() -> bool:
        target = _mount_target(control.cloud, str(state.efs), facts.zone) or {}
        return target.get("LifeCycleState") == "available"

    _wait_until(control, is_available, f"the mount target of {state.efs} is not available")
    control.save()


def _shared_folder(control: Control) -> str:
    request = requests.create_shared(control.state.options, control.state.facts)
    key = {"CreationToken": request["CreationToken"]}
    found = pages(control.cloud.efs, "describe_file_systems", "FileSystems", **key)
    if not found:
        with _ignoring("FileSystemAlreadyExists"):
            control.cloud.efs.create_file_system(**request)
        found = pages(control.cloud.efs, "describe_file_systems", "FileSystems", **key)
    name = str(found[0]["FileSystemId"])

    def is_available() -> bool:
        systems = pages(control.cloud.efs, "describe_file_systems", "FileSystems", **key)
        return any(system["LifeCycleState"] == "available" for system in systems)

    _wait_until(control, is_available, f"{name} is not available")
    return name


def _mount_target(cloud: Cloud, efs: str, zone: str) -> dict[str, Any] | None:
    targets = pages(cloud.efs, "describe_mount_targets", "MountTargets", FileSystemId=efs)
    return next((dict(one) for one in targets if one["AvailabilityZoneName"] == zone), None)


def groups_to_join(cloud: Cloud, efs: str, zone: str, options: Options) -> list[str]:
    """Return the groups of a shared folder's mount target, which instances join.

    Raises:
        ConfigError: if there is no mount target in the zone, or instances cannot join its groups.
    """
    target = _mount_target(cloud, efs, zone)
    if target is None:
        raise ConfigError(f"efs={efs} has no mount target in {zone}")
    names: list[str] = cloud.efs.describe_mount_target_security_groups(
        MountTargetId=target["MountTargetId"]
    )["SecurityGroups"]
    if len(names) >= _MAX_GROUPS:
        raise ConfigError(
            f"efs={efs}: its mount target has {len(names)} groups; an instance joins them and one "
            f"of its own, at most {_MAX_GROUPS}"
        )
    for group in cloud.ec2.describe_security_groups(GroupIds=names)["SecurityGroups"]:
        _refuse_open_group(efs, group, options)
    return sorted(names)  # a repeated call with one token must be identical


def _refuse_open_group(efs: str, group: dict[str, Any], options: Options) -> None:
    """Refuse a group that opens more than the plan says."""
    name = group["GroupId"]
    if any(_is_wide(rule[3]) for rule in requests.rules_of(group["IpPermissions"])):
        raise ConfigError(
            f"efs={efs}: its group {name} is open to the world; instances do not join it"
        )
    outbound = requests.rules_of(group["IpPermissionsEgress"])
    if not _is_wide(options.https_to) and any(_is_wide(rule[3]) for rule in outbound):
        raise ConfigError(
            f"https_to={options.https_to}: the group {name} of efs={efs} lets its members out to "
            "more; give the mount target a group that does not"
        )


def _is_wide(peer: str) -> bool:
    """Return whether a rule's other end is a large part of the internet."""
    if peer.startswith(("sg-", "pl-")):
        return False
    network = ipaddress.ip_network(peer, strict=False)
    return not network.is_private and network.prefixlen < (16 if network.version == 4 else 32)


def launch(control: Control, gang: GangState, part: Part, user_data: str) -> None:
    """Launch the instances of a part, or find those that an earlier attempt launched."""
    state = control.state
    if part.sent:
        part.instances = part.instances or find(control, part)
    if not part.instances:
        part.sent = True
        control.save()
        groups = [str(state.group), *state.efs_groups]
        request = requests.run_instances(
            part, gang, state.options, state.facts, control.common_tags, groups, user_data
        )
        made = control.cloud.ec2.run_instances(**request)["Instances"]
        part.instances = _ids_in_order(made)
    control.save()


def find(control: Control, part: Part) -> list[str]:
    """Find the instances of a part by their tag; those just launched may take some seconds."""
    filters = [tagged(requests.PART, part.token)]
    for attempt in range(3):
        found = _ids_in_order(_instances(control.cloud, filters))
        if found or attempt == 2:
            return found
        control.pause(_SETTLE_S / 2)
    raise AssertionError


def _ids_in_order(instances: Iterable[dict[str, Any]]) -> list[str]:
    return [
        one["InstanceId"] for one in sorted(instances, key=lambda one: int(one["AmiLaunchIndex"]))
    ]


def _instances(cloud: Cloud, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    reservations = pages(cloud.ec2, "describe_instances", "Reservations", Filters=filters)
    return [one for reservation in reservations for one in reservation["Instances"]]


def describe(cloud: Cloud, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return EC2's descriptions of instances, by id, without those it no longer knows."""
    if not names:
        return {}
    found = _instances(cloud, [{"Name": "instance-id", "Values": names}])
    return {one["InstanceId"]: one for one in found}


def living(cloud: Cloud, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the instances that have not ended, and so may cost money."""
    state = {"Name": "instance-state-name", "Values": _LIVE}
    return _instances(cloud, [*filters, state])


def wait_running(control: Control, names: list[str]) -> None:
    """Wait for instances to run.

    Raises:
        RunError: if one ends instead.
    """
    try:
        control.cloud.ec2.get_waiter("instance_running").wait(
            InstanceIds=names, WaiterConfig={"Delay": _DELAY_S, "MaxAttempts": 60}
        )
    except WaiterError as error:
        raise RunError(f"not all of {', '.join(names)} came to run") from error


def wait_known(control: Control, names: list[str]) -> None:
    """Wait some seconds for EC2 to show instances just launched; it never shows long-gone ones."""
    for _ in range(2):
        if len(describe(control.cloud, names)) == len(names):
            return
        control.pause(_SETTLE_S / 2)


def terminate(cloud: Cloud, names: list[str]) -> None:
    """End instances and wait until they are gone; some may be gone already.

    boto3's own waiter would fail where EC2 still shows one as pending for a moment.

    Raises:
        RunError: if they are not gone after ten minutes.
    """
    left = ask_to_end(cloud, names)
    for attempt in range(_ATTEMPTS):
        found = describe(cloud, left)
        left = [name for name, one in found.items() if one["State"]["Name"] != "terminated"]
        if not left:
            return
        if attempt < _ATTEMPTS - 1:
            time.sleep(_DELAY_S)
    raise RunError(f"{', '.join(left)} are asked to end, but are not gone")


def ask_to_end(cloud: Cloud, names: list[str]) -> list[str]:
    """Ask EC2 to end instances, without waiting; return those that it knows."""
    known = describe(cloud, names)
    live = [name for name, one in known.items() if one["State"]["Name"] in _LIVE]
    if live:
        cloud.ec2.terminate_instances(InstanceIds=live)
    return list(known)


def delete_groups(
    cloud: Cloud, filters: list[dict[str, Any]], pause: Callable[[float], object]
) -> None:
    """Delete security groups as soon as nothing uses them."""
    found = pages(cloud.ec2, "describe_security_groups", "SecurityGroups", Filters=filters)
    for group in found:
        for attempt in range(60):  # an interface outlives its instance for a moment
            try:
                with _ignoring("InvalidGroup.NotFound", "InvalidGroupId.NotFound"):
                    cloud.ec2.delete_security_group(GroupId=group["GroupId"])
                break
            except ClientError as error:
                if code(error) != "DependencyViolation" or attempt == 59:
                    raise
                pause(_DELAY_S)


def delete_shared(control: Control) -> list[str]:
    """Delete the user's own shared folder with its contents; return its ids.

    Raises:
        RunError: if instances of another fleet use it.
    """
    cloud, facts = control.cloud, control.state.facts
    mine = requests.shared_tags(control.state.options, facts)
    found = [
        system["FileSystemId"]
        for system in pages(cloud.efs, "describe_file_systems", "FileSystems")
        if all(tag in system["Tags"] for tag in mine)
    ]
    filters = [tagged(tag["Key"], tag["Value"]) for tag in mine]
    _refuse_shared_in_use(cloud, filters)
    for system in found:
        _delete_file_system(control, system)
    delete_groups(cloud, filters, control.pause)
    return found


def _refuse_shared_in_use(cloud: Cloud, filters: list[dict[str, Any]]) -> None:
    groups = pages(cloud.ec2, "describe_security_groups", "SecurityGroups", Filters=filters)
    if not groups:
        return
    mine = [{"Name": "group-id", "Values": [group["GroupId"] for group in groups]}]
    interfaces = pages(cloud.ec2, "describe_network_interfaces", "NetworkInterfaces", Filters=mine)
    names = {one.get("Attachment", {}).get("InstanceId") for one in interfaces} - {None}
    users = living(cloud, [{"Name": "instance-id", "Values": sorted(names)}]) if names else []
    if users:
        used = ", ".join(one["InstanceId"] for one in users)
        raise RunError(f"the shared folder is used by {used}: end their fleet first")


def _delete_file_system(control: Control, system: str) -> None:
    efs = control.cloud.efs

    def targets() -> list[Any]:
        return pages(efs, "describe_mount_targets", "MountTargets", FileSystemId=system)

    for target in targets():
        with _ignoring("MountTargetNotFound"):
            efs.delete_mount_target(MountTargetId=target["MountTargetId"])
    _wait_until(control, lambda: not targets(), f"{system} keeps its mount targets")
    with _ignoring("FileSystemNotFound"):
        efs.delete_file_system(FileSystemId=system)


def _wait_until(control: Control, is_done: Callable[[], bool], error: str) -> None:
    for _ in range(60):
        if is_done():
            return
        control.pause(_DELAY_S)
    raise RunError(error)
