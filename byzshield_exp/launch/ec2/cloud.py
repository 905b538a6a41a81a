"""The clients of AWS, and how their errors become one line."""

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
OUTAGE_S = 300.0  # in which AWS may not answer: the network of this machine comes back
_RETRY_S = 5.0


# They would tell signatures and session tokens to whoever makes everything verbose.
_LEAKY_LOGGERS = ("boto3", "botocore", "s3transfer", "urllib3", "asyncssh")


class NoCapacity(RunError):
    """The zone has no such instances now."""


class NoAnswer(RunError):
    """AWS does not answer, or not to this machine, or is too busy."""


@dataclass
class Cloud:
    """The clients of a region, each made when it is first used; several threads may use ``ec2``.

    Attributes:
        client: makes the client of a service in a region.
        region: its name.
        ec2: the client that is always there.
    """

    client: Callable[[str, str], Any]
    region: str

    def __post_init__(self) -> None:
        self.ec2 = self.client("ec2", self.region)

    @cached_property
    def efs(self) -> Any:
        """Shared file systems."""
        return self.client("efs", self.region)

    @cached_property
    def ssm(self) -> Any:
        """Systems Manager: the ids of images."""
        return self.client("ssm", self.region)

    @cached_property
    def sts(self) -> Any:
        """Who asks."""
        return self.client("sts", self.region)

    @cached_property
    def pricing(self) -> Any:
        """The price list."""
        return self.client("pricing", "us-east-1")  # it knows the prices of all regions


def connect(region: str | None) -> Cloud:
    """The clients of a region.

    Raises:
        ConfigError: if no region is known.
    """
    import boto3
    from botocore.config import Config

    for name in _LEAKY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    session = boto3.session.Session()
    # boto3 itself reads AWS_DEFAULT_REGION only, unlike Amazon's other programs.
    region = region or os.environ.get("AWS_REGION") or session.region_name
    if region is None:
        raise ConfigError("region is not given, and neither AWS_REGION nor the profile has one")
    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": 6}, connect_timeout=10, read_timeout=60
    )
    return Cloud(lambda name, where: session.client(name, region_name=where, config=config), region)


@contextmanager
def aws_errors() -> Iterator[None]:
    """Within, what AWS answers or fails to answer is a :class:`RunError` of one line.

    Raises:
        RunError: then; NoCapacity and NoAnswer where it may be different later.
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
    """Do what may be done twice; while AWS does not answer, again and again for some minutes.

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
    """The code of a ClientError."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_busy(error: Any) -> bool:
    """Whether a ClientError says that AWS has too much to do, or trouble of its own."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code(error) in _BUSY or status >= 500


def pages(client: Any, operation: str, key: str, **request: Any) -> list[Any]:
    """All items of an operation that answers in pages."""
    items: list[Any] = []
    for page in client.get_paginator(operation).paginate(**request):
        items += page[key]
    return items


def tagged(key: str, *values: str) -> dict[str, Any]:
    """A filter by one tag."""
    return {"Name": f"tag:{key}", "Values": list(values)}
