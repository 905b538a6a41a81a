"""The state of a fleet on disk, written before and after each call that creates something."""

import dataclasses
import fcntl
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.files import expand_user, write_atomically
from byzshield_exp.launch.ec2.facts import Facts
from byzshield_exp.launch.ec2.options import Options, options_of

FORMAT = 1
_RESERVE_S = 180.0  # to make and fetch checkpoints before the instances end themselves


@dataclass
class Part:
    """Instances that one call of RunInstances launches.

    Attributes:
        role: ``server`` or ``workers``.
        instance_type: of all of them.
        count: how many.
        token: makes the call idempotent; also the value of their tag.
        sent: whether the call may have been made.
        instances: their ids, in the order of their launch index; empty before the answer.
    """

    role: str
    instance_type: str
    count: int
    token: str
    sent: bool = False
    instances: list[str] = field(default_factory=list)


@dataclass
class GangState:
    """Instances that do a run together.

    Attributes:
        number: from 0; each attempt is a new gang.
        phase: ``launching``, ``booting``, ``ready``, ``running``, ``ending`` or ``ended``.
        minutes: after which each instance ends itself.
        started: seconds since 1970.
        parts: the workers', then the server's.
        job: path of the file of the job that it runs.
        work: name of the folder of that job's processes on the hosts; new for each attempt.
        ended: seconds since 1970.
    """

    number: int
    phase: str
    minutes: int
    started: float
    parts: list[Part]
    job: str | None = None
    work: str | None = None
    ended: float | None = None

    @property
    def instances(self) -> list[str]:
        """The known ids of its instances."""
        return [name for part in self.parts for name in part.instances]


@dataclass
class JobState:
    """A run to do.

    Attributes:
        path: of its job file.
        name: of the run.
        phase: ``waiting``, ``running``, ``done`` or ``failed``.
        attempts: number of gangs that have tried it.
        error: why it failed.
    """

    path: str
    name: str
    phase: str = "waiting"
    attempts: int = 0
    error: str | None = None


@dataclass
class State:
    """A fleet.

    Attributes:
        fleet: its id, the name and eight random hexadecimal digits, as in all tags.
        options: the user's.
        facts: looked up when it was created.
        created: seconds since 1970.
        deadline: when everything ends.
        phase: ``up`` or ``down``.
        group: id of the security group.
        efs: id of the shared folder.
        efs_groups: security groups of its mount target, which the instances join.
        gangs: all gangs so far, ended ones too.
        jobs: in the order in which they run.
    """

    fleet: str
    options: Options
    facts: Facts
    created: float
    deadline: float
    phase: str = "up"
    group: str | None = None
    efs: str | None = None
    efs_groups: list[str] = field(default_factory=list)
    gangs: list[GangState] = field(default_factory=list)
    jobs: list[JobState] = field(default_factory=list)

    def spent_usd(self, now: float) -> float:
        """Return the cost of the instances up to now, without volumes, EFS and traffic."""
        hours = sum((gang.ended or now) - gang.started for gang in self.gangs) / 3600
        return hours * self.facts.usd_per_hour

    def over(self, now: float) -> str | None:
        """Return which limit is reached, in one line; None if none is."""
        last = min(_RESERVE_S, 180 * self.options.max_hours)
        if now >= self.deadline - last:
            return f"max_hours={self.options.max_hours:g} is reached"
        if self.spent_usd(now) >= self.options.max_usd:
            return f"max_usd={self.options.max_usd:g} is reached"
        return None


def new_state(options: Options, facts: Facts, now: float) -> State:
    """Return the state of a fleet of which nothing exists yet."""
    fleet = f"{options.name}-{secrets.token_hex(4)}"
    return State(fleet, options, facts, now, now + options.max_hours * 3600)


def token(fleet: str, number: int, role: str) -> str:
    """Return a token that only the same part of the same gang gets."""
    return hashlib.sha256(f"{fleet}/{number}/{role}".encode()).hexdigest()[:32]


class Store:
    """The file of a fleet's state.

    Args of the constructor:
        folder: its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "state.json"
        self.lock = threading.RLock()  # guards the state among the threads of the gangs

    def load(self) -> State | None:
        """Read the state; None if there is none.

        Raises:
            RunError: if the file has another format or is damaged.
        """
        if not self.path.exists():
            return None
        try:
            return _parse_state(json.loads(self.path.read_text()))
        except (ValueError, KeyError, TypeError) as error:
            line = f"{self.path} cannot be read ({error}); gc finds the fleet by its tags"
            raise RunError(line) from error

    def save(self, state: State) -> None:
        """Write the state.

        Raises:
            RunError: if it cannot be written.
        """
        with self.lock:
            content = dataclasses.asdict(state) | {"format": FORMAT}
            try:
                write_atomically(self.path, json.dumps(content, indent=1).encode())
            except OSError as error:
                raise RunError(f"{self.path} cannot be written: {error}") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other drivers from this fleet within the block.

        Raises:
            RunError: if another driver works on it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"{self.folder}: another driver works on this fleet") from error
            yield


def store_of(output_dir: str, name: str) -> Store:
    """Return the store of a fleet by its name."""
    return Store(expand_user(output_dir) / "ec2" / name)


def loaded(store: Store) -> State:
    """Read the state of a fleet that must exist.

    Raises:
        ConfigError: if there is no state.
    """
    state = store.load()
    if state is None:
        raise ConfigError(f"{store.path}: no such fleet; output_dir= and name= say where it is")
    return state


def _parse_state(content: dict[str, Any]) -> State:
    if content.pop("format") != FORMAT:
        raise ValueError("another format")
    content["options"] = options_of(content["options"])
    content["facts"] = Facts(**content["facts"])
    content["jobs"] = [JobState(**job) for job in content["jobs"]]
    for gang in content["gangs"]:
        gang["parts"] = [Part(**part) for part in gang["parts"]]
    content["gangs"] = [GangState(**gang) for gang in content["gangs"]]
    return State(**content)
