"""The plan printed before anything is done: what is rented, its price, its open ports."""

import math
from dataclasses import dataclass

from botocore.exceptions import ClientError

from byzshield_exp.errors import ConfigError, RunError, first_line
from byzshield_exp.launch.ec2 import requests
from byzshield_exp.launch.ec2.bootstrap import user_data
from byzshield_exp.launch.ec2.cloud import Cloud, code
from byzshield_exp.launch.ec2.facts import Facts
from byzshield_exp.launch.ec2.options import Options
from byzshield_exp.launch.ec2.reach import bootstrap_of
from byzshield_exp.launch.ec2.requests import Rule
from byzshield_exp.launch.ec2.resources import groups_to_join
from byzshield_exp.launch.ec2.state import Part
from byzshield_exp.launch.ec2.wheel import difference

_FLEET = "xxxxxxxx"  # for the digits drawn when the fleet is created


@dataclass(frozen=True)
class Plan:
    """A fleet that does not exist yet.

    Attributes:
        options: the user's.
        facts: what was looked up.
        parts: of each gang, without real tokens.
        worst_usd: the cost if everything runs until ``max_hours``.
        user_data: of every instance.
    """

    options: Options
    facts: Facts
    parts: tuple[Part, ...]
    worst_usd: float
    user_data: str

    @property
    def fleet(self) -> str:
        """The name of its fleet, with a placeholder for the digits."""
        return f"{self.options.name}-{_FLEET}"


def plan(options: Options, facts: Facts) -> Plan:
    """Plan a fleet, without asking AWS or creating anything.

    Raises:
        ConfigError: if it may cost more than ``max_usd``.
    """
    rate = options.gangs * facts.usd_per_hour
    worst = rate * options.max_hours
    if worst > options.max_usd:
        raise ConfigError(
            f"max_usd={options.max_usd:g}: {options.max_hours:g} hours at {rate:.4g} USD may cost "
            f"{worst:.2f}; max_hours={_floor_hours(options.max_usd / rate)} would fit"
        )
    parts = (
        Part("workers", options.worker_type, options.workers, "at-launch"),
        Part("server", options.server_type, 1, "at-launch"),
    )
    efs = "fs-00000000" if options.efs == "create" else options.efs
    text = user_data(bootstrap_of(options, facts, efs, math.ceil(options.max_hours * 60)))
    return Plan(options, facts, parts, worst, text)


def describe(plan: Plan) -> str:
    """Return the plan as text, without the user-data."""
    options, facts = plan.options, plan.facts
    gangs = "1 gang" if options.gangs == 1 else f"{options.gangs} gangs at a time"
    life = "reused through the sweep" if options.reuse else "a new one for each run"
    lines = [
        f"fleet {plan.fleet} in {facts.zone} ({facts.subnet}, {facts.vpc}), account "
        f"{facts.account}, owner {facts.owner}",
        f"  {gangs}, {life}, each of",
        f"    1 x {options.server_type}: the server",
        f"    {options.workers} x {options.worker_type}: workers, {options.processes} processes "
        f"each (cluster.num_processes={options.world_size})",
        f"  {options.market}, image {facts.image} ({options.ami}), {options.volume_gb} GB gp3 "
        "encrypted, IMDSv2 only, an end of the system ends the instance",
        f"  instance profile {options.instance_profile}, transport {options.transport}, "
        f"public addresses {'yes' if options.public_address else 'no'}",
        f"price {facts.usd_per_hour:.4g} USD per hour and gang ({facts.price_source}), volumes, "
        "EFS and traffic apart",
        f"  at most {plan.worst_usd:.2f} USD: {options.gangs * options.gang_instances} instances "
        f"for max_hours={options.max_hours:g}, under max_usd={options.max_usd:g} and "
        f"max_instances={options.max_instances}",
        *_warnings(options),
        "creates",
        *(f"  {line}" for line in resources(plan)),
    ]
    return "\n".join(lines)


def _warnings(options: Options) -> list[str]:
    if options.wheel is None or options.transport == "local":
        return []
    found = difference(options.wheel)
    return [] if found is None else [f"warning: wheel={options.wheel}: {found}; build it again"]


def resources(plan: Plan) -> list[str]:
    """Return lines that name every resource to create, with its rules."""
    options, facts = plan.options, plan.facts
    lines = [f"security group {plan.fleet} in {facts.vpc}"]
    lines += [f"  in: {_rule_text(rule)}" for rule in sorted(requests.inbound("itself", options))]
    lines += [f"  out: {_rule_text(rule)}" for rule in sorted(requests.outbound("itself", options))]
    if options.efs == "create":
        name = requests.shared_name(options, facts)
        lines.append(f"EFS byzshield-{name}, encrypted, if it is not there; it stays, and costs")
        lines.append(f"  mount target in {facts.subnet}")
        lines.append(f"  security group byzshield-shared-{name}, in and out: tcp 2049 itself")
    elif options.efs is not None:
        lines.append(f"nothing for {options.efs}: instances join the groups of its mount target")
    count = options.gangs * options.gang_instances
    spot = f", {count} spot requests" if options.market == "spot" else ""
    lines.append(f"{count} instances, {count} volumes, {count} network interfaces{spot}")
    names = ("fleet", "name", "owner", "expires")
    lines.append(f"  all with the tags {', '.join(f'byzshield:{name}' for name in names)}")
    return lines


def ask(plan: Plan, cloud: Cloud) -> list[str]:
    """Ask EC2 with DryRun whether it would carry out the plan; return a line for each call.

    Raises:
        RunError: if a call would fail.
        ConfigError: if instances cannot join the groups of an existing shared folder.
    """
    efs = plan.options.efs
    if efs is not None and efs != "create":
        groups_to_join(cloud, efs, plan.facts.zone, plan.options)
    common = requests.fleet_tags(plan.fleet, plan.options, plan.facts, 0.0)
    calls = [("create_security_group", requests.create_group(plan.fleet, plan.facts, common))]
    if plan.options.efs == "create":
        shared = requests.create_shared_group(plan.options, plan.facts)
        calls.append(("create_security_group", shared))
    for part in plan.parts:
        request = requests.run_instances(
            part, None, plan.options, plan.facts, common, [], plan.user_data
        )
        del request["ClientToken"]  # a dry run must not use one up
        calls.append(("run_instances", request))
    return [_dry_run(cloud, name, request) for name, request in calls]


def _dry_run(cloud: Cloud, name: str, request: dict[str, object]) -> str:
    try:
        getattr(cloud.ec2, name)(**request, DryRun=True)
    except ClientError as error:
        if code(error) == "DryRunOperation":
            return f"{name}: would succeed"
        raise RunError(f"{name} would fail: {first_line(error)}") from error
    raise RunError(f"{name} answered a dry run with success: EC2 did not understand it")


def _rule_text(rule: Rule) -> str:
    protocol, first, last, peer = rule
    if protocol == "-1":
        return f"all from and to {peer}"
    return f"{protocol} {first if first == last else f'{first}-{last}'}, {peer}"


def _floor_hours(hours: float) -> str:
    return f"{math.floor(hours * 100) / 100:g}"
