"""Submit runs to Slurm through submitit: one task a node, which starts the node's ranks."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from byzshield_exp.errors import ConfigError, InUse, Queued, RunError, first_line
from byzshield_exp.files import write_atomically
from byzshield_exp.launch.job import Watch, load
from byzshield_exp.launch.slurm_task import OUTPUTS, SETUP, Task
from byzshield_exp.notices import complain, say
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.status import STATUS, read_status, write_status

_SUBMITTED = "slurm.json"  # in a run's folder
_POLL_S = 3.0


@dataclass(frozen=True)
class Resources:
    """What a job asks Slurm for; None leaves it to the cluster.

    Attributes:
        nodes: machines of a run, at least 1; its processes are spread over them.
        cpus_per_task: cores of each node; None: one per thread of each process there.
        gpus_per_node: GPUs of each node.
        mem_gb: memory of each node, in GiB.
        timeout_min: time limit of a job, in minutes; a run that needs longer is queued again.
        signal_delay_s: seconds before the limit in which the run may write its last checkpoint.
        max_num_timeout: how often a run is queued again after a timeout; preemptions do not count.
        array_parallelism: how many jobs of a sweep run at a time.
        partition: this and the next three are options of sbatch.
        qos: quality of service.
        account: the account that is charged.
        constraint: required features of the nodes.
        setup: shell lines to run before a job.
        additional_parameters: more options of sbatch, ``{reservation: x}``.
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


def submit_all(
    paths: Sequence[Path], resources: Resources, watches: Mapping[Path, Watch] | None = None
) -> list[Exception | None]:
    """Submit the jobs that Slurm does not have yet, as arrays, and wait until all have ended.

    Args:
        paths: job files, on a file system that all nodes share.
        resources: what each job asks for.
        watches: what is told of a job's run, by its file; it is called in the job.

    Returns:
        The error of each job, None where it is done.

    Raises:
        ConfigError: if something is out of range, or Slurm refuses the jobs.
    """
    _check_resources(resources)
    active = _active_ids()
    ids = {path: _last_id(path) for path in paths}
    waiting = {path: job_id for path, job_id in ids.items() if job_id in active}
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
        waiting |= _submit(some, count, threads, resources, watches or {})
    again = f", of which Slurm had {len(active & set(waiting.values()))} already" if active else ""
    say(f"slurm: {len(waiting)} jobs{again}: {', '.join(_array_ids(list(waiting.values())))}")
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


def _check_resources(resources: Resources) -> None:
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
    paths: Sequence[Path],
    processes: int,
    threads: int,
    resources: Resources,
    watches: Mapping[Path, Watch],
) -> dict[Path, str]:
    """Submit jobs of one size as an array; return their ids."""
    folder = load(paths[0]).folder.parent / OUTPUTS
    before = {path: read_status(path.parent) for path in paths}
    for path in paths:  # first: once submitted, jobs write status.json themselves
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
            array_parallelism=resources.array_parallelism, setup=[*resources.setup, *SETUP],
            **{name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
        with executor.batch():
            jobs = [
                executor.submit(Task(str(path.absolute()), watches.get(path))) for path in paths
            ]
        ids = [job.job_id for job in jobs]
    except (RuntimeError, ValueError, subprocess.CalledProcessError) as error:
        for path, status in before.items():
            if status:
                write_status(path.parent, **status)
            else:
                (path.parent / STATUS).unlink()
        raise ConfigError(f"hydra/launcher=byzshield_slurm: {first_line(error)}") from error
    for path, job_id in zip(paths, ids, strict=True):
        write_atomically(path.parent / _SUBMITTED, json.dumps({"job": job_id}).encode())
    return dict(zip(paths, ids, strict=True))


def _last_id(path: Path) -> str:
    """Return the id of the job that a run was last submitted as; empty if it never was."""
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((path.parent / _SUBMITTED).read_text())["job"])
    return ""


def _wait(left: set[str]) -> None:
    """Wait until Slurm has none of these jobs any more."""
    while left:
        time.sleep(_POLL_S)
        try:
            left = left & _active_ids()
        except ConfigError as error:  # Slurm's controller does not answer; the jobs go on
            complain(f"warning: {error}")
            time.sleep(10 * _POLL_S)


def _error_of(path: Path, job_id: str) -> Exception | None:
    status = read_status(path.parent)
    if status.get("state") == "done":
        return None
    if status.get("state") == "queued":
        write_status(path.parent, state="stopped", error=f"Slurm's job {job_id} never began")
        return RunError(f"Slurm's job {job_id} never began")
    outputs = load(path).folder.parent / OUTPUTS / job_id
    said = status.get("error") if status.get("state") in ("failed", "stopped") else None
    return RunError(said or f"Slurm's job {job_id} ended without a word; its outputs: {outputs}")


def _active_ids() -> set[str]:
    """Return this user's jobs that Slurm still has, as ``id`` or ``id_index``.

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


def _array_ids(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(job_id.partition("_")[0] for job_id in ids))
