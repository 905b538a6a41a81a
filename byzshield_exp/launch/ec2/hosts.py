"""The machines of a gang, and what every way to reach them can do."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from byzshield_exp.errors import RunError, printable

OUTPUT_BYTES = 20_000  # of a script's output that come back; Run Command shows 24,000 characters
TIMED_OUT = 124  # the code of a script that did not end in time, as of timeout(1)
_KILL_AFTER_S = 5

Answer = TypeVar("Answer")


class Unreachable(RunError):
    """A host does not answer, or not any more; what became of a script there is not known."""


@dataclass(frozen=True)
class Host:
    """One machine.

    Attributes:
        name: its id; the results name it.
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
        code: its exit code; 124 when it was ended because its time was over.
        output: the last 20,000 bytes of its stdout and stderr together, safe to be printed.
    """

    code: int
    output: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", printable(self.output))


@runtime_checkable
class Transport(Protocol):
    """A way to reach hosts. Several threads may use it at once.

    A path on a host is absolute, or relative to the home folder of the user that works there.
    """

    def run(self, host: Host, script: str, timeout_s: float) -> Ended:
        """Run a bash script, with nothing on its stdin.

        What it leaves running in a session of its own goes on. The script does not appear in the
        list of processes.

        Raises:
            Unreachable: if the host does not answer.
        """
        ...

    def send(self, host: Host, source: Path, target: str) -> None:
        """Copy a file there, making its folder; whoever looks sees all of it or none.

        Raises:
            Unreachable: if the host does not answer.
            RunError: if it could not be written there.
        """
        ...

    def fetch(self, host: Host, source: str, target: Path) -> None:
        """Copy all files of a folder into a folder here, ``status.json`` last.

        Raises:
            Unreachable: if the host does not answer.
            RunError: if there is no such folder, or it could not be read.
        """
        ...

    def close(self) -> None:
        """Give up all connections."""
        ...


def on_all(hosts: Sequence[Host], act: Callable[[Host], Answer]) -> list[Answer | Unreachable]:
    """Do the same for all hosts at once: per host the answer, or how it was not reached."""

    def attempt(host: Host) -> Answer | Unreachable:
        try:
            return act(host)
        except Unreachable as error:
            return error

    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(pool.map(attempt, hosts))


def bounded(script: str, timeout_s: float) -> str:
    """A script for any shell that runs a bash script for so long, and prints the end of its output.

    The output goes through a file, so that a process that the script leaves behind holds no
    connection open. The inner script is read whole before it starts and cannot read itself.
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
