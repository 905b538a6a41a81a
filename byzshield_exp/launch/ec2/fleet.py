"""A fleet: gangs of instances brought up, and everything brought down again."""

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
from byzshield_exp.launch.ec2.hosts import Answer, Ended, Host, Transport, Unreachable
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
LAST_FETCH_S = 120.0  # for what a run has made by the time that everything ends
_CHECK_EVERY_S = 1.0
WATCH_S = 15.0  # between two questions to EC2 whether all instances of a gang live


class Lost(RunError):
    """A gang that cannot be used any more; another one may do better."""


class LimitReached(RunError):
    """max_hours or max_usd: everything ends."""


@dataclass(frozen=True)
class Watched:
    """A way to hosts that asks, before each use and while it waits, whether to go on.

    Attributes:
        transport: the way.
        check: raises where not.
    """

    transport: Transport
    check: Callable[[], None]

    def run(self, host: Host, script: str, timeout_s: float) -> Ended:
        """Run a script."""
        return run_watched(self.check, partial(self.transport.run, host, script, timeout_s))

    def send(self, host: Host, source: Path, target: str) -> None:
        """Copy a file there."""
        run_watched(self.check, partial(self.transport.send, host, source, target))

    def fetch(self, host: Host, source: str, target: Path) -> None:
        """Copy a folder here."""
        run_watched(self.check, partial(self.transport.fetch, host, source, target))

    def fetch_at_last(self, host: Host, source: str, target: Path) -> None:
        """Fetch without asking, but not for long.

        Raises:
            Unreachable: if it does not end in time.
        """
        deadline = time.monotonic() + LAST_FETCH_S

        def check() -> None:
            if time.monotonic() > deadline:
                raise Unreachable(f"{host.name} does not send {source} in time")

        run_watched(check, partial(self.transport.fetch, host, source, target))

    def pause(self, seconds: float) -> None:
        """Only wait."""
        run_watched(self.check, partial(time.sleep, seconds))

    def close(self) -> None:
        """Give up all connections."""
        self.transport.close()


def run_watched(check: Callable[[], None], act: Callable[[], Answer]) -> Answer:
    """Do something in a thread of its own; ``check`` is called before and every second.

    What it raises is raised here, and the thread is left to itself.
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
    """A gang of which nothing exists yet; each attempt is a new one, with new tokens.

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
            ("workers", options.worker_type, options.workers),  # first: they are harder to get
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
    """Launch a gang, or go on where an earlier driver ended; returns the way to its hosts.

    Raises:
        NoCapacity: if there are no such instances now.
        Lost: if some instances have ended.
        RunError: if AWS refuses, or hosts do not get ready.
    """
    state = control.state
    if not any(part.sent for part in gang.parts):  # an earlier driver may have died here
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
    """The hosts of a gang, the server's first.

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
    """Which instances of a gang have ended, and what EC2 says about it; None: they all run."""
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

    That the state cannot be written, or for some minutes AWS does not answer, does not prevent it.
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
        shared: also delete the shared folder that ``efs=create`` made, with all that is in it.

    Raises:
        RunError: if something could not be ended; all else is.
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
    """All instances at once, before anything is waited for."""
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
    """End what has the tag of a fleet."""
    mine = [tagged(requests.FLEET, fleet)]
    terminate(control.cloud, [one["InstanceId"] for one in living(control.cloud, mine)])
    delete_groups(control.cloud, mine, control.pause)


def set_phase(control: Control, gang: GangState, phase: str) -> None:
    """Note that a gang got so far."""
    with control.store.lock:
        gang.phase = phase
        control.save()


def _set_phase_anyway(control: Control, gang: GangState, phase: str) -> None:
    with control.store.lock:
        gang.phase = phase
        save_anyway(control)


def save_anyway(control: Control) -> None:
    """Ending must not fail for the driver's disk: what is ended again does no harm."""
    try:
        control.save()
    except RunError as error:
        warn(f"{error}; ending goes on")


def _wait_ready(
    control: Control, gang: GangState, transport: Watched, hosts: list[Host], bootstrap: Bootstrap
) -> None:
    """Bring the wheel and wait until user-data has done its work on all hosts.

    Raises:
        RunError: if that takes too long or fails: another gang would hardly do better.
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
        except Unreachable as error:  # it still starts
            if time.monotonic() > deadline:
                minutes = control.state.options.boot_minutes
                line = f"{host.name} is not reached within boot_minutes={minutes:g}: {error}"
                raise RunError(line) from error
        control.pause(5)


def _make_check(control: Control, gang: GangState, stop: Event) -> Callable[[], None]:
    """What is asked before each script; EC2 itself only now and then."""
    asked = [time.monotonic()]
    heard = [time.monotonic()]

    def ask() -> str | None:
        try:
            with aws_errors():
                lost = why_lost(control, gang)
        except NoAnswer:  # the hosts go on without this machine's network
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
    """Whether to.

    Raises:
        Stopped: if everything is to end.
        LimitReached: likewise.
    """
    if stop.is_set():
        raise Stopped("stopped")
    reason = control.state.over(time.time())
    if reason is not None:
        raise LimitReached(f"{reason}: everything ends")
