"""The machines of a gang, and the interface of every transport to them."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from byzshield_exp.errors import RunError, printable

OUTPUT_BYTES = 20_000  # kept of a script's output; Run Command returns 24,000 characters
TIMED_OUT = 124  # exit code of a script that ran out of time, as of timeout(1)
_KILL_AFTER_S = 5

Answer = TypeVar("Answer")


class Unreachable(RunError):
    """A host does not answer; what became of a script there is unknown."""


@dataclass(frozen=True)
class Host:
    """One machine.

    Attributes:
        name: its id, also in the results.
        address: where the other hosts reach it (a private address).
        reach: where this machine reaches it: an address for ssh, the id of the instance for ssm.
        node: 0 is the host of the parameter server.
    """

    name: str
    address: str
    reach: str
    node: int


@dataclass(frozen=True)
class Ended:
    """How a script ended.

    Attributes:
        code: its exit code; 124 if it ran out of time.
        output: the last 20,000 bytes of its stdout and stderr together, safe to print.
    """

    code: int
    output: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", printable(self.output))


@runtime_checkable
class HostTransport(Protocol):
    """A way to reach hosts, which several threads may use at once.

    A path on a host is absolute, or relative to the home folder of the user there.
    """

    def run(self, host: Host, script: str, timeout_s: float) -> Ended:
        """Run a bash script, with nothing on its stdin.

        Processes that it leaves in a session of their own go on. The script does not appear in
        the list of processes.

        Raises:
            Unreachable: if the host does not answer.
        """
        ...

    def send(self, host: Host, source: Path, target: str) -> None:
        """Copy a file to a host, creating its folder; the file appears whole.

        Raises:
            Unreachable: if the host does not answer.
            RunError: if it could not be written there.
        """
        ...

    def fetch(self, host: Host, source: str, target: Path) -> None:
        """Copy all files of a host's folder into a folder here, ``status.json`` last.

        Raises:
            Unreachable: if the host does not answer.
            RunError: if there is no such folder, or it could not be read.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


def on_all(hosts: Sequence[Host], act: Callable[[Host], Answer]) -> list[Answer | Unreachable]:
    """Run an action for all hosts at once; return per host its result or ``Unreachable``."""

    def attempt(host: Host) -> Answer | Unreachable:
        try:
            return act(host)
        except Unreachable as error:
            return error

    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(pool.map(attempt, hosts))


def bounded(script: str, timeout_s: float) -> str:
    """Return a script for any shell that runs a bash script with a time limit.

    The output goes through a file, of which the end is printed, so that a process that is left
    behind holds no connection open. Bash reads the inner script whole before it runs, so a command
    in it cannot swallow the rest from stdin.
    """
    mark = f"end-{hashlib.sha256(script.encode()).hexdigest()[:16]}"
    limit = f"timeout --kill-after={_KILL_AFTER_S} {max(1, round(timeout_s))}"
    return "\n".join(
        [
            "output=$(mktemp) || exit 1",
            f"""{limit} bash -s > "$output" 2>&1 <<'{mark}'""",
            "{",
            script,
            "}",
            mark,
            "code=$?",
            f'tail -c {OUTPUT_BYTES} "$output"',
            'rm -f "$output"',
            "exit $code",
            "",
        ]
    )
