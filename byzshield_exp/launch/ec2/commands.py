"""The commands of ``byzshield ec2`` and of the launcher, as functions."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from byzshield_exp.errors import ConfigError
from byzshield_exp.launch.ec2 import requests
from byzshield_exp.launch.ec2.cloud import Cloud, aws_errors, connect, pages, tagged
from byzshield_exp.launch.ec2.drive import drive, ending_the_fleet
from byzshield_exp.launch.ec2.facts import look_up, owner_of
from byzshield_exp.launch.ec2.fleet import bring_up, down, hosts_of, new_gang
from byzshield_exp.launch.ec2.hosts import Ended, Host, on_all
from byzshield_exp.launch.ec2.options import Options, plain
from byzshield_exp.launch.ec2.plan import ask, describe, plan
from byzshield_exp.launch.ec2.reach import known_hosts, place_of, transport_to
from byzshield_exp.launch.ec2.resources import (
    Control,
    delete_groups,
    ensure_network,
    living,
    terminate,
)
from byzshield_exp.launch.ec2.runs import check_jobs
from byzshield_exp.launch.ec2.state import GangState, JobState, Store, loaded, new_state, store_of
from byzshield_exp.notices import say

_COMMAND_S = 600.0
_MAY_DIFFER = ("dry_run", "output_dir", "owner", "usd_per_hour")  # when a fleet is reused
TENSORBOARD_PORT = 6006


def show_plan(options: Options) -> None:
    """Print the plan and EC2's answers to a dry run; create nothing."""
    with aws_errors():
        cloud = connect(options.region)
        planned = plan(options, look_up(options, cloud))
        say(describe(planned))
        say("user-data")
        for line in planned.user_data.splitlines():
            say(f"  | {line}")
        for line in ask(planned, cloud):
            say(f"asked with DryRun: {line}")
    say("nothing was created; dry_run=false creates it")


def sweep(options: Options, jobs: Sequence[JobState]) -> list[JobState]:
    """Run jobs on a fleet and end it; with ``dry_run`` only print the plan.

    A fleet that an earlier driver left up is reused, with the jobs that it still runs. Without
    jobs, such a fleet is ended.

    Returns:
        The jobs; their phases say how they ended.
    """
    if not jobs:
        _end_idle_fleet(options)
        return []
    check_jobs(list(jobs), options)
    if options.dry_run:
        show_plan(options)
        return list(jobs)
    with _open_fleet(options, jobs) as control:
        drive(control)
        return list(control.state.jobs)


def _end_idle_fleet(options: Options) -> None:
    store = store_of(options.output_dir, options.name)
    state = store.load()
    if state is None or state.phase == "down":
        return
    if options.dry_run:
        say(f"{state.fleet} is up and has nothing to do; dry_run=false ends it")
    else:
        take_down(store, shared=False)


def up(options: Options) -> None:
    """Bring up the gangs and leave them up; with ``dry_run`` only print the plan."""
    if options.dry_run:
        show_plan(options)
        return
    with _open_fleet(options, ()) as control, ending_the_fleet(control, only_after_errors=True):
        with aws_errors():
            ensure_network(control)
        gangs = [gang for gang in control.state.gangs if gang.phase not in ("ending", "ended")]
        while len(gangs) < options.gangs:
            gangs.append(new_gang(control))
        for gang in gangs:
            bring_up(control, gang, Event()).close()
        _print_hosts(control)
        expires = datetime.fromtimestamp(control.state.deadline, UTC)
        say(f"they end by themselves at {expires:%Y-%m-%d %H:%M} UTC, or with the command down")


def hosts(store: Store) -> None:
    """Print the instances of a fleet."""
    _print_hosts(_load_control(store))


def run(store: Store, command: str) -> int:
    """Run a shell command on all hosts of a fleet; return the highest exit code."""
    control = _load_control(store)
    worst = 0
    for gang, members in _hosts_by_gang(control):
        transport = transport_to(control, members)
        try:
            ask_host = partial(transport.run, script=command, timeout_s=_COMMAND_S)
            answers = on_all(members, ask_host)
        finally:
            transport.close()
        for host, answer in zip(members, answers, strict=True):
            code = answer.code if isinstance(answer, Ended) else 255
            text = answer.output.rstrip() if isinstance(answer, Ended) else str(answer)
            say(f"gang {gang.number} node {host.node} {host.name}: exit code {code}\n{text}")
            worst = max(worst, code)
    return worst


def tunnel(store: Store) -> None:
    """Print the commands that open TensorBoard on the server's host of each gang."""
    control = _load_control(store)
    options, place, port = control.state.options, place_of(control), TENSORBOARD_PORT
    for gang, members in _hosts_by_gang(control):
        say(f"gang {gang.number}: start it on the host, then open http://localhost:{port}")
        program = f"{Path(place.python).parent}/tensorboard"
        start = f"setsid nohup {program} --logdir {place.outputs} --port {port} >/dev/null 2>&1 &"
        name = shlex.join([f"name={options.name}", f"output_dir={options.output_dir}"])
        say(f"  byzshield ec2 run {name} -- {shlex.quote(start)}")
        say(f"  {_forward_command(control, members[0])}")


def _forward_command(control: Control, host: Host) -> str:
    options, port = control.state.options, TENSORBOARD_PORT
    if options.transport == "ssm":
        parameters = f'{{"portNumber":["{port}"],"localPortNumber":["{port}"]}}'
        return (
            f"aws ssm start-session --region {control.cloud.region} --target {host.name} "
            f"--document-name AWS-StartPortForwardingSession --parameters '{parameters}'"
        )
    key = f"-i {shlex.quote(options.ssh_key)} " if options.ssh_key else ""
    known = shlex.quote(str(known_hosts(control, host)))
    return (
        f"ssh {key}-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes -N "
        f"-L {port}:localhost:{port} {options.ssh_user}@{host.reach}"
    )


def status(store: Store) -> None:
    """Print a fleet's state from disk, without asking AWS."""
    state, now = loaded(store), time.time()
    left = max(0.0, state.deadline - now) / 3600
    say(
        f"{state.fleet}: {state.phase}, about {state.spent_usd(now):.2f} of "
        f"{state.options.max_usd:g} USD spent, {left:.1f} of {state.options.max_hours:g} hours left"
    )
    for gang in state.gangs:
        instances = ", ".join(gang.instances) or "no instances known"
        say(f"  gang {gang.number}: {gang.phase}; {instances}")
    for job in state.jobs:
        error = f": {job.error}" if job.error else ""
        say(f"  run {job.name}: {job.phase}, {job.attempts} attempts{error}")


def resume(store: Store) -> list[JobState]:
    """Continue the runs of a fleet whose driver died, then end the fleet.

    Raises:
        ConfigError: if the fleet is down.
    """
    with store.alone():
        control = _load_control(store)
        if control.state.phase == "down":
            raise ConfigError(f"{control.state.fleet} is down; start the sweep again")
        drive(control)
        return control.state.jobs


def take_down(store: Store, shared: bool) -> None:
    """End everything of a fleet, whatever state its driver left."""
    with store.alone():
        control = _load_control(store)
        down(control, shared)
    say(
        f"{control.state.fleet} is down, about {control.state.spent_usd(time.time()):.2f} USD spent"
    )


def list_instances(region: str | None, owner: str | None, everybody: bool) -> None:
    """Print the instances in a region of an owner's fleets, or of all, found by their tags."""
    with aws_errors():
        cloud = connect(region)
        found = living(cloud, _fleet_filters(cloud, owner, everybody))
    for one in found:
        tags = _tags(one)
        say(
            f"{tags[requests.FLEET]}  {one['InstanceId']}  {one['InstanceType']}  "
            f"{one['State']['Name']}  owner {tags.get(requests.OWNER)}  "
            f"expires {tags.get(requests.EXPIRES)}"
        )
    say(f"{len(found)} instances")


def collect_garbage(
    region: str | None, fleet: str | None, owner: str | None, everybody: bool, dry_run: bool
) -> None:
    """End what is left of expired fleets, found by their tags.

    These are an owner's or everybody's fleets, or the one named ``fleet``, whoever owns it and
    whether or not it has expired.
    """
    with aws_errors():
        cloud = connect(region)
        filters = _fleet_filters(cloud, owner, everybody or fleet is not None)
        instances = [one for one in living(cloud, filters) if _should_end(one, fleet)]
        groups = pages(cloud.ec2, "describe_security_groups", "SecurityGroups", Filters=filters)
        names = [one["InstanceId"] for one in instances]
        over = {_tags(one)[requests.FLEET] for one in groups if _should_end(one, fleet)}
        for one in instances:
            say(f"instance {one['InstanceId']} of {_tags(one)[requests.FLEET]}")
        for name in sorted(over):
            say(f"security group of {name}")
        if not dry_run:
            terminate(cloud, names)
            if over:
                delete_groups(cloud, [tagged(requests.FLEET, *over)], time.sleep)
    said = "would be removed; dry_run=false does it" if dry_run else "removed"
    say(f"{len(names)} instances and {len(over)} security groups {said}")


def _fleet_filters(cloud: Cloud, owner: str | None, everybody: bool) -> list[dict[str, Any]]:
    """Return filters for the fleets of an owner, of this AWS identity, or of everybody."""
    fleets = {"Name": "tag-key", "Values": [requests.FLEET]}
    if everybody:
        return [fleets]
    return [fleets, tagged(requests.OWNER, owner or owner_of(cloud))]


def _tags(one: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in one.get("Tags", [])}


def _should_end(one: dict[str, Any], fleet: str | None) -> bool:
    tags = _tags(one)
    if fleet is not None:
        return tags[requests.FLEET] == fleet
    return tags.get(requests.EXPIRES, "9") < _now()


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def _open_fleet(options: Options, jobs: Sequence[JobState]) -> Iterator[Control]:
    """Yield a new fleet, or the one that an earlier driver left up."""
    store = store_of(options.output_dir, options.name)
    with store.alone():
        cloud = connect(options.region)
        state = store.load()
        if state is not None and state.phase == "up" and state.over(time.time()):
            say(f"{state.fleet} is over: it is ended first")
            down(Control(state, store, cloud))
        if state is not None and state.phase == "up":
            _check_unchanged(state.options, options, state.fleet)
            say(f"taking up {state.fleet}")
        else:
            with aws_errors():
                planned = plan(options, look_up(options, cloud))
                ask(planned, cloud)
            say(describe(planned))
            state = new_state(options, planned.facts, time.time())
        going = {job.path: job for job in state.jobs if job.phase == "running"}
        state.jobs = [going.get(job.path, job) for job in jobs]
        store.save(state)
        yield Control(state, store, cloud)


def _check_unchanged(there: Options, asked: Options, fleet: str) -> None:
    before, now = plain(there), plain(asked)
    for key in before:
        if key not in _MAY_DIFFER and before[key] != now[key]:
            raise ConfigError(
                f"{key}={now[key]}: {fleet} is up with {key}={before[key]}; end it with down first"
            )


def _load_control(store: Store) -> Control:
    state = loaded(store)
    return Control(state, store, connect(state.facts.region))


def _hosts_by_gang(control: Control) -> list[tuple[GangState, list[Host]]]:
    with aws_errors():
        return [
            (gang, hosts_of(control, gang))
            for gang in control.state.gangs
            if gang.phase in ("booting", "ready", "running")
        ]


def _print_hosts(control: Control) -> None:
    for gang, members in _hosts_by_gang(control):
        for host in members:
            role = "server" if host.node == 0 else "workers"
            say(
                f"gang {gang.number} node {host.node}  {host.name}  {host.address}  "
                f"reached as {host.reach}  {role}"
            )
