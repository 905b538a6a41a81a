"""Run one node's part of a job of Slurm: submitit calls this on every node."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from byzshield_exp import interrupts
from byzshield_exp.clusters import Node, start_forkserver
from byzshield_exp.errors import RunError, Stopped, first_line
from byzshield_exp.files import write_atomically
from byzshield_exp.launch.job import Job, Watch, load, perform
from byzshield_exp.launch.ranks import in_processes, preload

OUTPUTS = ".slurm"  # in output_dir: scripts, outputs, and the errors of nodes without the server
Run = Callable[[Job], dict[str, Any]]
_SECRET, _PORT = "BYZSHIELD_SECRET", "BYZSHIELD_PORT"
# The batch script runs these on the first node, where rank 0 will be; again after each requeue.
SETUP = (
    f"export {_SECRET}=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \\n')",
    f"export {_PORT}=$({shlex.quote(sys.executable)} -c 'import socket; door = socket.socket(); "
    'door.bind(("", 0)); print(door.getsockname()[1])\')',
)


@dataclass(frozen=True)
class Task:
    """The call that submitit makes on every node of a job.

    Attributes:
        path: the job file.
        watch: what is told of the run, on the node of the server.
    """

    path: str
    watch: Watch | None = None

    def __call__(self) -> None:
        """Run this node's part.

        Slurm announces a timeout by USR2, a preemption by USR2 or SIGTERM. The run then writes a
        checkpoint, and submitit queues it again.
        """
        requeue, was_asked = signal.getsignal(signal.SIGUSR2), []

        def ask(number: int, frame: Any) -> None:
            was_asked.append(number)
            interrupts.request()

        job, environment = load(Path(self.path)), submitit.JobEnvironment()
        start_forkserver(preload())  # before the handler, which it must not inherit
        signal.signal(signal.SIGUSR2, ask)
        try:
            if environment.num_nodes == 1:
                self._perform(job, in_processes)  # even one rank: its parent sees what killed it
            else:
                _run_share(job, environment, self._perform)
        except Stopped:
            if callable(requeue) and (was_asked or _is_preempted(environment.job_id)):
                requeue(signal.SIGUSR2, None)
            raise

    def _perform(self, job: Job, do: Run) -> None:
        def run() -> dict[str, Any]:
            return perform(job, do)

        self.watch(run) if self.watch else run()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return what submitit queues again."""
        return submitit.helpers.DelayedSubmission(self)


def _is_preempted(job_id: str) -> bool:
    """Whether Slurm asked a job to end to make room for another one.

    Slurm itself would not queue a job again that ends within its partition's GraceTime.
    """
    command = ["scontrol", "show", "job", job_id]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (subprocess.SubprocessError, OSError):
        return False
    is_alive = re.search(r"JobState=(RUNNING|SIGNALING)", said) is not None  # not: cancelled
    return is_alive and re.search(r"\bPreemptTime=\d", said) is not None


def _run_share(job: Job, environment: Any, perform_it: Callable[[Job, Run], None]) -> None:
    """Run a node's ranks, where a run has several nodes; rank 0 is on the first."""
    node, nodes = environment.node, environment.num_nodes
    count = job.config["cluster"]["num_processes"]
    bounds = [count * one // nodes for one in range(nodes + 1)]
    attempt = f"{environment.job_id}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    errors = job.folder.parent / OUTPUTS / f"errors.{attempt}"

    def failed_elsewhere() -> Exception | None:
        for found in errors.glob("node*.json"):
            said = json.loads(found.read_text())
            error = RunError(said["error"])
            error.rank = said["rank"]
            return error
        return None

    here = Node(
        range(bounds[node], bounds[node + 1]),
        f"{environment.hostnames[0]}:{os.environ[_PORT]}",
        os.environ.pop(_SECRET),
        failed_elsewhere if node == 0 else lambda: None,
    )
    if node == 0:
        perform_it(job, lambda job: in_processes(job, here))
        return
    try:
        in_processes(job, here)
    except Exception as error:  # the first node reports it: only that one holds the folder
        said = {"error": first_line(error), "rank": getattr(error, "rank", here.ranks[0])}
        write_atomically(errors / f"node{node}.json", json.dumps(said).encode())
        raise
