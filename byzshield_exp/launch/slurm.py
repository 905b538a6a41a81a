"""Runs as jobs of Slurm, submitted by submitit: one task a node, which starts the node's ranks."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from byzshield_exp import interrupts
from byzshield_exp.clusters import Node, start_forkserver
from byzshield_exp.errors import ConfigError, InUse, Queued, RunError, Stopped, first_line
from byzshield_exp.files import write_atomically
from byzshield_exp.launch.job import Job, load, perform
from byzshield_exp.launch.ranks import in_processes, preload
from byzshield_exp.notices import complain, say
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.status import STATUS, read_status, write_status

_FOLDER = ".slurm"  # in output_dir: scripts, outputs, and the errors of nodes without the server
_SUBMITTED = "slurm.json"  # in a run's folder
_POLL_S = 3.0
_SECRET, _PORT = "BYZSHIELD_SECRET", "BYZSHIELD_PORT"
# Run by the batch script on the first node, where rank 0 will be; anew when a job is requeued.
_SETUP = (
    f"export {_SECRET}=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \\n')",
    f"export {_PORT}=$({shlex.quote(sys.executable)} -c 'import socket; door = socket.socket(); "
    'door.bind(("", 0)); print(door.getsockname()[1])\')',
)


@dataclass(frozen=True)
class Resources:
    """What a job asks Slurm for; None leaves it to the cluster.

    Attributes:
        nodes: machines of a run, from 1; its processes are spread over them.
        cpus_per_task: cores on each; None: one per process on it and thread.
        gpus_per_node: GPUs on each.
        mem_gb: on each.
        timeout_min: minutes of one go; a run that needs longer is queued again.
        signal_delay_s: before that, seconds in which it may write its last checkpoint.
        max_num_timeout: how often it is queued again after a timeout (preemption does not count).
        array_parallelism: jobs of a sweep at a time.
        partition: and what follows: as sbatch has them.
        qos: quality of service.
        account: that is charged.
        constraint: features of nodes.
        setup: shell lines before a job.
        additional_parameters: more of sbatch's options, ``{reservation: x}``.
        wait: whether the program waits for the jobs; they do not need it.
    """

    nodes: int = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    timeout_min: int = 60
    signal_delay_s: int = 120
    max_num_timeout: int = 100
    array_parallelism: int = 256
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    setup: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] | None = None
    wait: bool = True


def submit_all(paths: Sequence[Path], resources: Resources) -> list[Exception | None]:
    """Submit jobs as arrays, those that Slurm has already not again, and wait for their ends.

    Args:
        paths: of the jobs, on a file system that all nodes have.
        resources: of each.

    Returns:
        For each job, its error.

    Raises:
        ConfigError: if something is out of range, or Slurm refuses the jobs.
    """
    _check(resources)
    alive = _alive()
    ids = {path: _submitted(path) for path in paths}
    waiting = {path: known for path, known in ids.items() if known in alive}
    held: dict[Path, InUse] = {}
    by_size: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        if path in waiting:
            continue
        job = load(path)
        if RunFolder(job.folder).in_use:
            held[path] = InUse(f"{job.folder} is held by another process, which is no job of yours")
            continue
        count = job.config["cluster"]["num_processes"]
        _check_nodes(count, resources.nodes)
        by_size.setdefault((count, job.config["threads"]), []).append(path)
    for (count, threads), some in by_size.items():
        waiting |= _submit(some, count, threads, resources)
    again = f", of which Slurm had {len(alive & set(waiting.values()))} already" if alive else ""
    say(f"slurm: {len(waiting)} jobs{again}: {', '.join(_short(list(waiting.values())))}")
    if not resources.wait:
        return [held.get(path) or Queued(f"Slurm has it, as job {waiting[path]}") for path in paths]
    try:
        _wait(set(waiting.values()))
    except KeyboardInterrupt:
        say(
            "slurm: the jobs stay in the queue, the same command waits for them (scancel ends them)"
        )
        raise
    return [held.get(path) or _error_of(path, waiting[path]) for path in paths]


def _check(resources: Resources) -> None:
    for name in ("nodes", "timeout_min", "array_parallelism"):
        if getattr(resources, name) < 1:
            raise ConfigError(
                f"hydra.launcher.{name}={getattr(resources, name)} must be at least 1"
            )
    if resources.timeout_min * 60 <= resources.signal_delay_s + 60:
        raise ConfigError(
            f"hydra.launcher.timeout_min={resources.timeout_min} must exceed signal_delay_s="
            f"{resources.signal_delay_s} s by more than a minute: a job would be asked to stop "
            "before it has begun"
        )


def _check_nodes(processes: int, nodes: int) -> None:
    if nodes > processes:
        raise ConfigError(
            f"hydra.launcher.nodes={nodes} must be at most cluster.num_processes={processes}"
        )


def _submit(
    paths: Sequence[Path], processes: int, threads: int, resources: Resources
) -> dict[Path, str]:
    """Submit jobs of one size as an array; their ids."""
    folder = load(paths[0]).folder.parent / _FOLDER
    before = {path: read_status(path.parent) for path in paths}
    for path in paths:  # before they are: then status.json is theirs
        write_status(path.parent, state="queued", error=None)
    try:
        executor = submitit.SlurmExecutor(
            folder=str(folder / "%j"), max_num_timeout=resources.max_num_timeout
        )
        on_a_node = -(-processes // resources.nodes)
        given = {
            "mem": resources.mem_gb and f"{int(resources.mem_gb * 1024)}MB",
            "gpus_per_node": resources.gpus_per_node,
            "partition": resources.partition,
            "qos": resources.qos,
            "account": resources.account,
            "constraint": resources.constraint,
            "additional_parameters": resources.additional_parameters,
        }
        executor.update_parameters(
            job_name="byzshield_exp", nodes=resources.nodes, ntasks_per_node=1,
            cpus_per_task=resources.cpus_per_task or on_a_node * threads,
            time=resources.timeout_min, signal_delay_s=resources.signal_delay_s,
            array_parallelism=resources.array_parallelism, setup=[*resources.setup, *_SETUP],
            **{name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
        with executor.batch():
            jobs = [executor.submit(Task(str(path.absolute()))) for path in paths]
        ids = [job.job_id for job in jobs]
    except (RuntimeError, ValueError, subprocess.CalledProcessError) as error:
        for path, status in before.items():
            if status:
                write_status(path.parent, **status)
            else:
                (path.parent / STATUS).unlink()
        raise ConfigError(f"hydra/launcher=byzshield_slurm: {first_line(error)}") from error
    for path, known in zip(paths, ids, strict=True):
        write_atomically(path.parent / _SUBMITTED, json.dumps({"job": known}).encode())
    return dict(zip(paths, ids, strict=True))


def _submitted(path: Path) -> str:
    """The id of the job that a run was last submitted as; empty: it was not."""
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((path.parent / _SUBMITTED).read_text())["job"])
    return ""


def _wait(left: set[str]) -> None:
    """Wait until Slurm has none of these any more."""
    while left:
        time.sleep(_POLL_S)
        try:
            left = left & _alive()
        except ConfigError as error:  # the controller does not answer; the jobs go on
            complain(f"warning: {error}")
            time.sleep(10 * _POLL_S)


def _error_of(path: Path, known: str) -> Exception | None:
    status = read_status(path.parent)
    if status.get("state") == "done":
        return None
    if status.get("state") == "queued":
        write_status(path.parent, state="stopped", error=f"Slurm's job {known} never began")
        return RunError(f"Slurm's job {known} never began")
    outputs = load(path).folder.parent / _FOLDER / known
    said = status.get("error") if status.get("state") in ("failed", "stopped") else None
    return RunError(said or f"Slurm's job {known} ended without a word; its outputs: {outputs}")


def _alive() -> set[str]:
    """All jobs of this user that Slurm still has, as ``id`` or ``id_index``.

    Raises:
        ConfigError: if Slurm does not answer.
    """
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError as error:
        raise ConfigError("hydra/launcher=byzshield_slurm: there is no squeue here") from error
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise ConfigError(f"hydra/launcher=byzshield_slurm: squeue: {said.strip()}") from error
    return set(done.stdout.split())


def _short(ids: Sequence[str]) -> list[str]:
    """Arrays once."""
    return list(dict.fromkeys(known.partition("_")[0] for known in ids))


@dataclass(frozen=True)
class Task:
    """What submitit runs on every node of a job.

    Attributes:
        path: of the job.
    """

    path: str

    def __call__(self) -> None:
        """Do this node's part.

        A timeout is announced by USR2, a preemption by USR2 or SIGTERM: the run makes a checkpoint,
        and submitit has it queued again.
        """
        requeue, was_asked = signal.getsignal(signal.SIGUSR2), []

        def ask(number: int, frame: Any) -> None:
            was_asked.append(number)
            interrupts.request()

        job, environment = load(Path(self.path)), submitit.JobEnvironment()
        start_forkserver(preload())  # before, as it must not hear of this
        signal.signal(signal.SIGUSR2, ask)
        try:
            if environment.num_nodes == 1:
                perform(job, in_processes)  # also a single one: who kills it is then known
            else:
                _share(job, environment)
        except Stopped:
            if callable(requeue) and (was_asked or _is_preempted(environment.job_id)):
                requeue(signal.SIGUSR2, None)
            raise

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """For submitit: what is queued again."""
        return submitit.helpers.DelayedSubmission(self)


def _is_preempted(known: str) -> bool:
    """Whether a job that was asked to end is to make room for another one.

    A job that ends within a partition's GraceTime would not be queued again by Slurm itself.
    """
    command = ["scontrol", "show", "job", known]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (subprocess.SubprocessError, OSError):
        return False
    is_alive = re.search(r"JobState=(RUNNING|SIGNALING)", said) is not None  # not: cancelled
    return is_alive and re.search(r"\bPreemptTime=\d", said) is not None


def _share(job: Job, environment: Any) -> None:
    """Do a node's share of a run of several nodes; rank 0 is on the first."""
    node, nodes = environment.node, environment.num_nodes
    count = job.config["cluster"]["num_processes"]
    bounds = [count * one // nodes for one in range(nodes + 1)]
    attempt = f"{environment.job_id}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    errors = job.folder.parent / _FOLDER / f"errors.{attempt}"

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
        perform(job, lambda job: in_processes(job, here))
        return
    try:
        in_processes(job, here)
    except Exception as error:  # the first node says it: only there the folder is held
        said = {"error": first_line(error), "rank": getattr(error, "rank", here.ranks[0])}
        write_atomically(errors / f"node{node}.json", json.dumps(said).encode())
        raise
