"""Facts looked up before a plan; nothing here creates or changes anything."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from byzshield_exp.errors import ConfigError, first_line
from byzshield_exp.files import expand_user
from byzshield_exp.launch.ec2.cloud import Cloud, code, pages
from byzshield_exp.launch.ec2.options import Options


@dataclass(frozen=True)
class Facts:
    """Where a fleet will be, and what it costs.

    Attributes:
        account: number of the AWS account.
        owner: value of the owner tag.
        region: name of the region.
        zone: availability zone.
        subnet: id of the subnet.
        vpc: id of the VPC.
        image: id of the machine image.
        root_device: name of the root volume in the image.
        usd_per_hour: price of a gang.
        price_source: where the price comes from.
        wheel_sha256: checksum of the wheel.
        public_key: the key that may log in; None without ssh.
    """

    account: str
    owner: str
    region: str
    zone: str
    subnet: str
    vpc: str
    image: str
    root_device: str
    usd_per_hour: float
    price_source: str
    wheel_sha256: str
    public_key: str | None


def look_up(options: Options, cloud: Cloud) -> Facts:
    """Look up the facts for some options.

    Raises:
        ConfigError: if something that the user named does not exist.
    """
    wheel_sha256, public_key = _wheel_sha256(options), _public_key(options)
    identity = cloud.sts.get_caller_identity()
    subnet = _find_subnet(options, cloud)
    image, root_device = _find_image(options, cloud)
    price, source = _price(options, cloud, subnet["AvailabilityZone"])
    return Facts(
        account=identity["Account"],
        owner=options.owner or _owner_in(identity),
        region=cloud.region,
        zone=subnet["AvailabilityZone"],
        subnet=subnet["SubnetId"],
        vpc=subnet["VpcId"],
        image=image,
        root_device=root_device,
        usd_per_hour=price,
        price_source=source,
        wheel_sha256=wheel_sha256,
        public_key=public_key,
    )


def owner_of(cloud: Cloud) -> str:
    """Return the name of the AWS identity, the owner where none is given."""
    return _owner_in(cloud.sts.get_caller_identity())


def _owner_in(identity: dict[str, Any]) -> str:
    return str(identity["Arn"]).rpartition("/")[2]


def _wheel_sha256(options: Options) -> str:
    if options.wheel_sha256 is not None:
        return options.wheel_sha256
    if options.wheel is None:
        return "0" * 64  # transport=local installs nothing
    try:
        return hashlib.sha256(expand_user(options.wheel).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"wheel={options.wheel} cannot be read: {error}") from error


def _public_key(options: Options) -> str | None:
    if options.transport != "ssh":
        return None
    path = options.ssh_public_key or f"{options.ssh_key}.pub"
    try:
        return expand_user(path).read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"ssh_public_key={path} cannot be read: {error}") from error


def _find_subnet(options: Options, cloud: Cloud) -> dict[str, Any]:
    if options.subnet is not None:
        filters = [{"Name": "subnet-id", "Values": [options.subnet]}]
    else:
        filters = [{"Name": "default-for-az", "Values": ["true"]}]
    if options.zone is not None:
        filters.append({"Name": "availability-zone", "Values": [options.zone]})
    found = pages(cloud.ec2, "describe_subnets", "Subnets", Filters=filters)
    if not found:
        named = f"subnet={options.subnet}" if options.subnet else "subnet is not given"
        zone = f" in {options.zone}" if options.zone else ""
        raise ConfigError(f"{named}: {cloud.region} has no such subnet (or no default one){zone}")
    return dict(min(found, key=lambda subnet: str(subnet["AvailabilityZone"])))


def _find_image(options: Options, cloud: Cloud) -> tuple[str, str]:
    from botocore.exceptions import ClientError

    image = options.ami
    try:
        if image.startswith("/"):
            image = cloud.ssm.get_parameter(Name=image)["Parameter"]["Value"]
        (found,) = cloud.ec2.describe_images(ImageIds=[image])["Images"]
    except (ClientError, ValueError) as error:
        raise ConfigError(f"ami={options.ami}: {cloud.region} has no such image") from error
    return image, str(found["RootDeviceName"])


def _price(options: Options, cloud: Cloud, zone: str) -> tuple[float, str]:
    """Return the price of a gang in USD per hour, and its source."""
    from botocore.exceptions import BotoCoreError, ClientError

    if options.usd_per_hour is not None:
        return options.usd_per_hour, "given"
    look = _spot_price if options.market == "spot" else _list_price
    try:
        server = look(cloud, options.server_type, zone)
        worker = look(cloud, options.worker_type, zone)
    except (ClientError, BotoCoreError, LookupError, ValueError) as error:
        why = code(error) if isinstance(error, ClientError) else first_line(error)
        raise ConfigError(
            f"usd_per_hour is not given, and the price could not be looked up ({why})"
        ) from error
    kind = "spot prices" if options.market == "spot" else "list prices"
    return server + options.workers * worker, f"{kind} of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _spot_price(cloud: Cloud, instance_type: str, zone: str) -> float:
    """Return the newest spot price in the zone."""
    history = pages(
        cloud.ec2,
        "describe_spot_price_history",
        "SpotPriceHistory",
        InstanceTypes=[instance_type],
        AvailabilityZone=zone,
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.now(UTC),  # EC2 also returns the price valid at that time
    )
    if not history:
        raise LookupError(f"no spot price of {instance_type} in {zone}")
    return float(max(history, key=lambda entry: entry["Timestamp"])["SpotPrice"])


def _list_price(cloud: Cloud, instance_type: str, zone: str) -> float:
    """Return the on-demand price of Linux on a shared host."""
    terms = {
        "instanceType": instance_type,
        "regionCode": cloud.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": terms[key]} for key in terms]
    found = pages(
        cloud.pricing, "get_products", "PriceList", ServiceCode="AmazonEC2", Filters=filters
    )
    prices = [
        float(dimension["pricePerUnit"]["USD"])
        for product in map(json.loads, found)
        for offer in product["terms"].get("OnDemand", {}).values()
        for dimension in offer["priceDimensions"].values()
    ]
    if not prices:
        raise LookupError(f"no list price of {instance_type} in {cloud.region}")
    return max(prices)
