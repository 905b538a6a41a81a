"""Bring up a fleet's gangs of instances, and bring everything down again."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from byzshield_exp.errors import RunError, Stopped
from byzshield_exp.files import expand_user
from byzshield_exp.launch.ec2 import requests
from byzshield_exp.launch.ec2.bootstrap import Bootstrap, user_data, wait_until_ready
from byzshield_exp.launch.ec2.cloud import OUTAGE_S, NoAnswer, aws_errors, retry_outage, tagged
from byzshield_exp.launch.ec2.hosts import Answer, Ended, Host, HostTransport, Unreachable
from byzshield_exp.launch.ec2.reach import bootstrap_of, transport_to, wheel_there
from byzshield_exp.launch.ec2.resources import (
    Control,
    ask_to_end,
    delete_groups,
    delete_shared,
    describe,
    find,
    launch,
    living,
    terminate,
    wait_known,
    wait_running,
)
from byzshield_exp.launch.ec2.state import GangState, Part, State, token
from byzshield_exp.notices import say, warn

_ALIVE = ("pending", "running")
LAST_FETCH_S = 120.0  # to copy a run's results when everything ends
_CHECK_EVERY_S = 1.0
WATCH_S = 15.0  # between two checks by EC2 that a gang's instances run


class Lost(RunError):
    """A gang is no longer usable; another one may do better."""


class LimitReached(RunError):
    """max_hours or max_usd is reached: everything ends."""


@dataclass(frozen=True)
class Watched:
    """A transport that calls a check before each use and while it waits.

    Attributes:
        transport: reaches the hosts.
        check: raises to end the wait.
    """

    transport: HostTransport
    check: Callable[[], None]

    def run(self, host: Host, script: str, timeout_s: float) -> Ended:
        """Run a script on a host."""
        return run_watched(self.check, partial(self.transport.run, host, script, timeout_s))

    def send(self, host: Host, source: Path, target: str) -> None:
        """Copy a file to a host."""
        run_watched(self.check, partial(self.transport.send, host, source, target))

    def fetch(self, host: Host, source: str, target: Path) -> None:
        """Copy a folder from a host."""
        run_watched(self.check, partial(self.transport.fetch, host, source, target))

    def fetch_at_last(self, host: Host, source: str, target: Path) -> None:
        """Copy a folder from a host without the check, but within ``LAST_FETCH_S`` seconds.

        Raises:
            Unreachable: if it takes longer.
        """
        deadline = time.monotonic() + LAST_FETCH_S

        def check() -> None:
            if time.monotonic() > deadline:
                raise Unreachable(f"{host.name} does not send {source} in time")

        run_watched(check, partial(self.transport.fetch, host, source, target))

    def pause(self, seconds: float) -> None:
        """Wait some seconds."""
        run_watched(self.check, partial(time.sleep, seconds))

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()


def run_watched(check: Callable[[], None], act: Callable[[], Answer]) -> Answer:
    """Run an action in its own thread; call ``check`` before it and every second.

    An exception of ``check`` is raised here, and the thread is not waited for.
    """
    check()
    future = Future[Answer]()

    def work() -> None:
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    while not wait([future], _CHECK_EVERY_S).done:
        check()
    return future.result()


def new_gang(control: Control) -> GangState:
    """Record a new gang, with new tokens, for another attempt; create no instance yet.

    Raises:
        RunError: if a limit is reached.
    """
    state, options, now = control.state, control.state.options, time.time()
    with control.store.lock:
        reason = state.over(now)
        if reason is not None:
            raise RunError(f"{reason}: no more instances")
        number = len(state.gangs)
        kinds = (
            ("workers", options.worker_type, options.workers),  # first: many are harder to get
            ("server", options.server_type, 1),
        )
        parts = [Part(*kind, token(state.fleet, number, kind[0])) for kind in kinds]
        gang = GangState(number, "launching", _minutes_left(state), now, parts)
        state.gangs.append(gang)
        control.save()
    return gang


def _minutes_left(state: State) -> int:
    return max(1, math.ceil((state.deadline - time.time()) / 60))


def bring_up(control: Control, gang: GangState, stop: Event) -> Watched:
    """Launch a gang, or finish an earlier driver's launch; return a transport to its hosts.

    Raises:
        NoCapacity: if there are no such instances now.
        Lost: if some instances have ended.
        RunError: if AWS refuses, or hosts do not get ready.
    """
    state = control.state
    if not any(part.sent for part in gang.parts):  # the record may be an earlier driver's, and old
        gang.minutes = _minutes_left(state)
    bootstrap = bootstrap_of(state.options, state.facts, state.efs, gang.minutes)
    with aws_errors():
        text = user_data(bootstrap)
        for part in gang.parts:
            launch(control, gang, part, text)
        if gang.phase == "launching":
            set_phase(control, gang, "booting")
        try:
            check_limits = partial(_check_limits, control, stop)
            run_watched(check_limits, partial(wait_running, control, gang.instances))
        except LimitReached:
            raise
        except RunError as error:
            raise Lost(why_lost(control, gang) or str(error)) from error
        hosts = hosts_of(control, gang)
    check = _make_check(control, gang, stop)
    transport = Watched(transport_to(control, hosts, check), check)
    try:
        if gang.phase == "booting":
            if state.options.transport != "local":
                _wait_ready(control, gang, transport, hosts, bootstrap)
            set_phase(control, gang, "ready")
    except BaseException:
        transport.close()
        raise
    return transport


def hosts_of(control: Control, gang: GangState) -> list[Host]:
    """Return the hosts of a gang, the server's first.

    Raises:
        Lost: if not all of its instances run.
    """
    reason = why_lost(control, gang)
    if reason is not None:
        raise Lost(reason)
    found = describe(control.cloud, gang.instances)
    names = [name for part in reversed(gang.parts) for name in part.instances]
    hosts = []
    for node, name in enumerate(names):
        private = found[name]["PrivateIpAddress"]
        public = found[name].get("PublicIpAddress", private)
        transport = control.state.options.transport
        reach = public if transport == "ssh" else name
        address = "127.0.0.1" if transport == "local" else private
        hosts.append(Host(name=name, address=address, reach=reach, node=node))
    return hosts


def why_lost(control: Control, gang: GangState) -> str | None:
    """Return which instances of a gang have ended, with EC2's reason; None if all run."""
    found = describe(control.cloud, gang.instances)
    gone = []
    for name in gang.instances:
        state = found.get(name, {}).get("State", {}).get("Name", "unknown")
        if state not in _ALIVE:
            reason = found.get(name, {}).get("StateReason", {}).get("Code", "")
            gone.append(f"{name} is {state}{f' ({reason})' if reason else ''}")
    missing = sum(part.count - len(part.instances) for part in gang.parts)
    if missing:
        gone.append(f"{missing} instances were never made")
    return "; ".join(gone) or None


def end_gang(control: Control, gang: GangState) -> None:
    """Terminate a gang's instances and wait until they are gone.

    A state that cannot be written, or some minutes without an answer of AWS, do not prevent this.
    """
    if gang.phase == "ended":
        return
    _set_phase_anyway(control, gang, "ending")
    retry_outage(partial(_terminate_gang, control, gang))
    gang.ended = time.time()
    _set_phase_anyway(control, gang, "ended")
    if gang.instances:
        say(f"gang {gang.number}: terminated {', '.join(gang.instances)}")


def _terminate_gang(control: Control, gang: GangState) -> None:
    for part in gang.parts:
        if part.sent and not part.instances:
            part.instances = find(control, part)
    wait_known(control, gang.instances)
    terminate(control.cloud, gang.instances)


def down(control: Control, shared: bool = False) -> None:
    """End everything of a fleet, whatever the state says and whatever ran before.

    Args:
        control: of the fleet.
        shared: also delete the shared folder that ``efs=create`` made, with its contents.

    Raises:
        RunError: if something could not be ended, after everything else was.
    """
    state = control.state
    steps = [
        partial(retry_outage, partial(_terminate_all, control)),
        *[partial(end_gang, control, gang) for gang in state.gangs],
        partial(retry_outage, partial(remove, control, state.fleet)),
    ]
    errors = [error for step in steps if (error := _error_of(step)) is not None]
    if errors:
        raise errors[0]
    if shared:
        with aws_errors():
            for name in delete_shared(control):
                say(f"deleted {name}")
        state.efs, state.efs_groups = None, []
    if state.efs is not None and state.options.efs == "create":
        say(f"the shared folder {state.efs} stays, and costs; down efs=true deletes it")
    state.group, state.phase = None, "down"
    save_anyway(control)


def _terminate_all(control: Control) -> None:
    """Ask EC2 to end all instances, before anything is waited for."""
    names = [name for gang in control.state.gangs for name in gang.instances]
    mine = living(control.cloud, [tagged(requests.FLEET, control.state.fleet)])
    ask_to_end(control.cloud, sorted({*names, *(one["InstanceId"] for one in mine)}))


def _error_of(step: Callable[[], None]) -> RunError | None:
    try:
        step()
    except RunError as error:
        return error
    return None


def remove(control: Control, fleet: str) -> None:
    """End the instances and delete the security groups that have a fleet's tag."""
    mine = [tagged(requests.FLEET, fleet)]
    terminate(control.cloud, [one["InstanceId"] for one in living(control.cloud, mine)])
    delete_groups(control.cloud, mine, control.pause)


def set_phase(control: Control, gang: GangState, phase: str) -> None:
    """Save a gang's new phase."""
    with control.store.lock:
        gang.phase = phase
        control.save()


def _set_phase_anyway(control: Control, gang: GangState, phase: str) -> None:
    with control.store.lock:
        gang.phase = phase
        save_anyway(control)


def save_anyway(control: Control) -> None:
    """Save the state, or only warn: a full disk must not keep instances from being ended."""
    try:
        control.save()
    except RunError as error:
        warn(f"{error}; ending goes on")


def _wait_ready(
    control: Control, gang: GangState, transport: Watched, hosts: list[Host], bootstrap: Bootstrap
) -> None:
    """Send the wheel, and wait until user-data has prepared all hosts.

    Raises:
        RunError: if that fails or takes too long; another gang would hardly do better.
    """
    options, facts = control.state.options, control.state.facts
    say(f"gang {gang.number}: waiting for {len(hosts)} hosts to be ready")
    deadline = time.monotonic() + options.boot_minutes * 60
    target = wheel_there(options, facts)
    if not target.startswith("s3://"):
        for host in hosts:
            _send_wheel(control, transport, host, target, deadline)
    wait_until_ready(transport, hosts, bootstrap, max(1.0, deadline - time.monotonic()))


def _send_wheel(
    control: Control, transport: Watched, host: Host, target: str, deadline: float
) -> None:
    while True:
        try:
            transport.send(host, expand_user(str(control.state.options.wheel)), target)
            return
        except Unreachable as error:  # the host may still be starting
            if time.monotonic() > deadline:
                minutes = control.state.options.boot_minutes
                line = f"{host.name} is not reached within boot_minutes={minutes:g}: {error}"
                raise RunError(line) from error
        control.pause(5)


def _make_check(control: Control, gang: GangState, stop: Event) -> Callable[[], None]:
    """Return a check of the limits and, every ``WATCH_S`` seconds, of the instances."""
    asked = [time.monotonic()]
    heard = [time.monotonic()]

    def ask() -> str | None:
        try:
            with aws_errors():
                lost = why_lost(control, gang)
        except NoAnswer:  # the hosts work on while this machine is offline
            if time.monotonic() - heard[0] > OUTAGE_S:
                raise
            return None
        heard[0] = time.monotonic()
        return lost

    def check() -> None:
        _check_limits(control, stop)
        if time.monotonic() - asked[0] >= WATCH_S:
            asked[0] = time.monotonic()
            lost = ask()
            if lost is not None:
                raise Lost(lost)

    return check


def _check_limits(control: Control, stop: Event) -> None:
    """Raise if stopped or over a limit.

    Raises:
        Stopped: if the driver is stopping.
        LimitReached: if ``max_hours`` or ``max_usd`` is reached.
    """
    if stop.is_set():
        raise Stopped("stopped")
    reason = control.state.over(time.time())
    if reason is not None:
        raise LimitReached(f"{reason}: everything ends")
