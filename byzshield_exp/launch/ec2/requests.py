"""Requests to AWS as plain values: the same for the plan, the dry run and the real call."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from byzshield_exp.launch.ec2.facts import Facts
from byzshield_exp.launch.ec2.options import Options
from byzshield_exp.launch.ec2.state import GangState, Part

# Keys of tags.
FLEET = "byzshield:fleet"
NAME = "byzshield:name"
GANG = "byzshield:gang"
PART = "byzshield:part"
OWNER = "byzshield:owner"
EXPIRES = "byzshield:expires"
SHARED = "byzshield:shared"  # on the shared folder and its group, which outlive a fleet

_ALL = "-1"
_NFS = 2049
Rule = tuple[str, int, int, str]  # protocol, first and last port (-1 for all), a group or a network


def tags(**more: str) -> list[dict[str, str]]:
    """Return tags in EC2's form; the keys are given without the prefix ``byzshield:``."""
    return [{"Key": f"byzshield:{key}", "Value": value} for key, value in more.items()]


def fleet_tags(fleet: str, options: Options, facts: Facts, deadline: float) -> dict[str, str]:
    """Return the tags of everything that ends with the fleet."""
    expires = datetime.fromtimestamp(deadline, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"fleet": fleet, "name": options.name, "owner": facts.owner, "expires": expires}


def create_group(fleet: str, facts: Facts, common: dict[str, str]) -> dict[str, Any]:
    """Return a request to CreateSecurityGroup for the instances."""
    return {
        "GroupName": fleet,
        "Description": "byzshield_exp: the instances of one fleet, open to each other",
        "VpcId": facts.vpc,
        "TagSpecifications": [_tag_specification("security-group", tags(**common))],
    }


def create_shared_group(options: Options, facts: Facts) -> dict[str, Any]:
    """Return a request to CreateSecurityGroup for the shared folder."""
    return {
        "GroupName": f"byzshield-shared-{shared_name(options, facts)}",
        "Description": "byzshield_exp: NFS between the shared folder and the instances",
        "VpcId": facts.vpc,
        "TagSpecifications": [_tag_specification("security-group", shared_tags(options, facts))],
    }


def create_shared(options: Options, facts: Facts) -> dict[str, Any]:
    """Return a request to CreateFileSystem."""
    return {
        "CreationToken": f"byzshield-{shared_name(options, facts)}",
        "Encrypted": True,
        "PerformanceMode": "generalPurpose",
        "ThroughputMode": "elastic",
        "Tags": shared_tags(options, facts),
    }


def shared_tags(options: Options, facts: Facts) -> list[dict[str, str]]:
    """Return the tags of the shared folder; it outlives the fleet, so it does not expire."""
    return tags(shared=shared_name(options, facts), owner=facts.owner)


def shared_name(options: Options, facts: Facts) -> str:
    """Return the name of a user's own shared folder, different for every owner."""
    return f"{options.name}-{hashlib.sha256(facts.owner.encode()).hexdigest()[:12]}"


def inbound(group: str, options: Options) -> set[Rule]:
    """Return who may connect to an instance: the others, and one address with ssh."""
    rules = {(_ALL, -1, -1, group)}
    if options.ssh_from is not None:
        rules.add(("tcp", 22, 22, options.ssh_from))
    return rules


def outbound(group: str, options: Options) -> set[Rule]:
    """Return where instances may connect to: each other, and HTTPS for packages, SSM and S3."""
    return {(_ALL, -1, -1, group), ("tcp", 443, 443, options.https_to)}


def shared_rules(group: str) -> set[Rule]:
    """Return the shared folder's rules for both directions: NFS within its group."""
    return {("tcp", _NFS, _NFS, group)}


def permission(rule: Rule) -> dict[str, Any]:
    """Return a rule in EC2's form."""
    protocol, first, last, peer = rule
    ports = {} if protocol == _ALL else {"FromPort": first, "ToPort": last}
    if peer.startswith("sg-"):
        peers = {"UserIdGroupPairs": [{"GroupId": peer}]}
    elif peer.startswith("pl-"):
        peers = {"PrefixListIds": [{"PrefixListId": peer}]}
    elif ":" in peer:
        peers = {"Ipv6Ranges": [{"CidrIpv6": peer}]}
    else:
        peers = {"IpRanges": [{"CidrIp": peer}]}
    return {"IpProtocol": protocol, **ports, **peers}


def rules_of(permissions: list[dict[str, Any]]) -> set[Rule]:
    """Return the rules in permissions of EC2's form."""
    rules = set()
    for entry in permissions:
        ports = entry.get("FromPort", -1), entry.get("ToPort", -1)
        peers = [pair["GroupId"] for pair in entry.get("UserIdGroupPairs", [])]
        peers += [peer["CidrIp"] for peer in entry.get("IpRanges", [])]
        peers += [peer["CidrIpv6"] for peer in entry.get("Ipv6Ranges", [])]
        peers += [peer["PrefixListId"] for peer in entry.get("PrefixListIds", [])]
        rules |= {(entry["IpProtocol"], *ports, peer) for peer in peers}
    return rules


def run_instances(
    part: Part,
    gang: GangState | None,
    options: Options,
    facts: Facts,
    common: dict[str, str],
    groups: list[str],
    user_data: str,
) -> dict[str, Any]:
    """Return a request to RunInstances for a part of a gang: all of its instances or none."""
    number = gang.number if gang else 0
    named = common | {"gang": f"{common['fleet']}/{number}", "part": part.token}
    what = [{"Key": "Name", "Value": f"{common['fleet']} {part.role}"}, *tags(**named)]
    kinds = ["instance", "volume", "network-interface"]
    request: dict[str, Any] = {
        "ClientToken": part.token,
        "MinCount": part.count,
        "MaxCount": part.count,
        "ImageId": facts.image,
        "InstanceType": part.instance_type,
        "UserData": user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": facts.root_device,
                "Ebs": {
                    "VolumeSize": options.volume_gb,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": facts.subnet,
                "AssociatePublicIpAddress": options.public_address,
                "DeleteOnTermination": True,
                **({"Groups": groups} if groups else {}),
            }
        ],
    }
    if options.instance_profile is not None:
        request["IamInstanceProfile"] = {"Name": options.instance_profile}
    if options.market == "spot":
        kinds.append("spot-instances-request")
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    request["TagSpecifications"] = [_tag_specification(kind, what) for kind in kinds]
    return request


def _tag_specification(kind: str, what: list[dict[str, str]]) -> dict[str, Any]:
    return {"ResourceType": kind, "Tags": what}
