"""Clients of AWS, and their errors as messages of one line."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from byzshield_exp.errors import ConfigError, RunError, first_line
from byzshield_exp.notices import warn

_NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "SpotMaxPriceTooLow",
    "MaxSpotInstanceCountExceeded",
    "VcpuLimitExceeded",
    "InstanceLimitExceeded",
    "InsufficientFreeAddressesInSubnet",
)
_BUSY = (
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "EC2ThrottledException",
    "SlowDown",
)
OUTAGE_S = 300.0  # for which AWS may be silent: this machine's network may recover
_RETRY_S = 5.0
# At debug level these log signatures and session tokens.
_LEAKY_LOGGERS = ("boto3", "botocore", "s3transfer", "urllib3", "asyncssh")


class NoCapacity(RunError):
    """EC2 has no such instances in the zone now."""


class NoAnswer(RunError):
    """AWS is unreachable or too busy."""


@dataclass
class Cloud:
    """The clients of a region; threads may share ``ec2``, the others are created on first use.

    Attributes:
        client: creates the client of a service in a region.
        region: its name.
        ec2: client of EC2.
    """

    client: Callable[[str, str], Any]
    region: str

    def __post_init__(self) -> None:
        self.ec2 = self.client("ec2", self.region)

    @cached_property
    def efs(self) -> Any:
        """Client of the shared file systems."""
        return self.client("efs", self.region)

    @cached_property
    def ssm(self) -> Any:
        """Client of Systems Manager, which knows the ids of images."""
        return self.client("ssm", self.region)

    @cached_property
    def sts(self) -> Any:
        """Client of the Security Token Service, which names the caller."""
        return self.client("sts", self.region)

    @cached_property
    def pricing(self) -> Any:
        """Client of the price list."""
        return self.client("pricing", "us-east-1")  # serves the prices of all regions


def connect(region: str | None) -> Cloud:
    """Create the clients of a region.

    Raises:
        ConfigError: if no region is known.
    """
    import boto3
    from botocore.config import Config

    for name in _LEAKY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    session = boto3.session.Session()
    # boto3 ignores AWS_REGION, which Amazon's other programs read.
    region = region or os.environ.get("AWS_REGION") or session.region_name
    if region is None:
        raise ConfigError("region is not given, and neither AWS_REGION nor the profile has one")
    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": 6}, connect_timeout=10, read_timeout=60
    )
    return Cloud(lambda name, where: session.client(name, region_name=where, config=config), region)


@contextmanager
def aws_errors() -> Iterator[None]:
    """Turn AWS errors within the block into a :class:`RunError` of one line.

    Raises:
        RunError: if a call fails; NoCapacity or NoAnswer if it may succeed later.
    """
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    try:
        yield
    except ClientError as error:
        kind = NoAnswer if is_busy(error) else RunError
        kind = NoCapacity if code(error) in _NO_CAPACITY else kind
        raise kind(f"AWS: {first_line(error)}") from error
    except BotoCoreError as error:
        kind = NoAnswer if isinstance(error, ConnectionError | HTTPClientError) else RunError
        raise kind(f"AWS: {first_line(error)}") from error


def retry_outage(act: Callable[[], object]) -> None:
    """Run an idempotent action; repeat it for ``OUTAGE_S`` seconds while AWS does not answer.

    Raises:
        RunError: as within :func:`aws_errors`.
    """
    deadline = time.monotonic() + OUTAGE_S
    while True:
        try:
            with aws_errors():
                act()
            return
        except NoAnswer as error:
            if time.monotonic() >= deadline:
                raise
            warn(f"{error}; it is asked again")
            time.sleep(_RETRY_S)


def code(error: Any) -> str:
    """Return the code of a ClientError."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_busy(error: Any) -> bool:
    """Return whether a ClientError says that AWS is overloaded or failing."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code(error) in _BUSY or status >= 500


def pages(client: Any, operation: str, key: str, **request: Any) -> list[Any]:
    """Return all items of an operation that answers in pages."""
    items: list[Any] = []
    for page in client.get_paginator(operation).paginate(**request):
        items += page[key]
    return items


def tagged(key: str, *values: str) -> dict[str, Any]:
    """Return a filter on one tag."""
    return {"Name": f"tag:{key}", "Values": list(values)}
