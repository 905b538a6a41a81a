"""One run on one gang: its files there, torchrun on all hosts, its results back here."""

import json
import secrets
import shlex
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byzshield_exp.ec2 import gang as torchrun
from byzshield_exp.ec2.fleet import Lost, Watched, bring_up, hosts_of, move
from byzshield_exp.ec2.hosts import Host
from byzshield_exp.ec2.options import Options
from byzshield_exp.ec2.reach import Place, place_of
from byzshield_exp.ec2.resources import Control
from byzshield_exp.ec2.state import Gang, Job
from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.notices import say

_PREPARE_S = 3600.0


def jobs_of(paths: Sequence[Path]) -> list[Job]:
    """Jobs that nobody has begun.

    Raises:
        ConfigError: if a file cannot be read.
    """
    return [Job(str(path.resolve()), str(_read(path)["name"])) for path in paths]


def check_jobs(jobs: list[Job], options: Options) -> None:
    """Refuse jobs that do not fit a gang, before anything is rented.

    Raises:
        ConfigError: for the first one.
    """
    for job in jobs:
        cluster = _config(job)["cluster"]
        if cluster["num_processes"] != options.world_size:
            raise ConfigError(
                f"cluster.num_processes={cluster['num_processes']} of {job.name}: a gang has "
                f"{options.world_size} processes (1 server, workers={options.workers} times "
                f"processes={options.processes}); choose cluster=processes"
            )


def do(control: Control, gang: Gang, job: Job, stop: threading.Event) -> None:
    """Do a job with a gang, or go on watching it; the job's phase says how it ended.

    Raises:
        Lost: if the gang cannot go on.
        Stopped: if everything is to end.
        LimitReached: likewise.
    """
    transport = bring_up(control, gang, stop)
    try:
        _do_there(control, gang, job, transport)
    finally:
        transport.close()


def _do_there(control: Control, gang: Gang, job: Job, transport: Watched) -> None:
    place = place_of(control)
    hosts = tuple(hosts_of(control, gang))
    options = control.state.options
    is_new = gang.job != job.path
    name = gang.work if gang.work and not is_new else _new_name(control, gang)
    work = torchrun.Gang(
        name, hosts, (1, *[options.processes] * options.workers), f"{place.jobs}/{name}.json",
        python=place.python, folder=place.gangs, port=place.port, look_every_s=place.look_every_s,
        metadata=place.metadata,
    )  # fmt: skip
    if is_new:
        for host in hosts[:1] if place.is_shared else hosts:
            _send(transport, host, place, job, work.job)
        gang.job, gang.work = job.path, name
        move(control, gang, "running")
    say(f"{job.name}: on gang {gang.number}, attempt {job.attempts}")
    target = Path(_config(job)["output_dir"]) / job.name
    source = f"{place.outputs}/{job.name}"
    try:
        end = torchrun.run_gang(transport, work)
    except BaseException:
        torchrun.end_gang(transport.transport, work)  # a checkpoint, where there is time for one
        _bring_back(transport, hosts[0], source, target)
        raise
    trouble = _bring_back(transport, hosts[0], source, target)
    if end.lost:
        raise Lost("; ".join(f"{host}: {why}" for host, why in end.lost.items()))
    status = _status(target)
    if status.get("state") == "stopped":  # by nobody here: torchrun ends with 1 then
        raise Lost("the job was asked to end, so its instances are being taken back")
    _judge(control, gang, job, status, trouble or _last_line(end.output))


def _new_name(control: Control, gang: Gang) -> str:
    """Of no earlier job: the same run may come to the same gang again."""
    return f"{control.state.fleet}.{gang.number}.{secrets.token_hex(4)}"


def _judge(control: Control, gang: Gang, job: Job, status: dict[str, Any], line: str) -> None:
    is_done = status.get("state") == "done"
    with control.store.lock:
        job.phase = "done" if is_done else "failed"
        job.error = None if is_done else str(status.get("error") or line)
        gang.job, gang.work, gang.phase = None, None, "ready"
        control.save()
    say(f"{job.name}: {job.phase}{'' if is_done else f': {job.error}'}")


def _bring_back(transport: Watched, host: Host, source: str, target: Path) -> str | None:
    """Copy the results here; returns why that was not possible."""
    try:
        transport.fetch(host, source, target)
    except RunError as error:
        return str(error)
    return None


def _send(transport: Watched, host: Host, place: Place, job: Job, target: str) -> None:
    """The job with the folders of the hosts, and the data that it needs."""
    content = _read(Path(job.path))
    config = content["config"]
    config["output_dir"] = place.outputs
    _prepare(transport, host, place, config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(content))
        transport.send(host, path, target)


def _prepare(transport: Watched, host: Host, place: Place, config: dict[str, Any]) -> None:
    """Fetch a data set that can be fetched; the command holds a lock, and does it once.

    Data of the user's own must lie on the hosts where the configuration says.
    """
    from byzshield_exp.datasets.official import DOWNLOADS  # brings torch

    dataset = config["choices"]["dataset"]
    if dataset not in DOWNLOADS:
        return
    config["dataset"]["root"] = place.data
    command = [place.python, "-m", "byzshield_exp.prepare", f"dataset={dataset}"]
    command += [f"dataset.root={place.data}"]
    if config["dataset"].get("extra"):
        command += ["dataset.extra=true"]  # svhn's further pictures
    ended = transport.run(host, shlex.join(command), _PREPARE_S)
    if ended.code != 0:
        raise RunError(f"{host.name}: dataset={dataset}: {_last_line(ended.output)}")


def _config(job: Job) -> dict[str, Any]:
    return dict(_read(Path(job.path))["config"])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = dict(json.loads(path.read_text()))
        return {"name": content["name"], "config": dict(content["config"])} | content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the job {path} cannot be read: {error}") from error


def _status(folder: Path) -> dict[str, Any]:
    """What a run's ``status.json`` says; empty where there is none."""
    try:
        return dict(json.loads((folder / "status.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1][-500:] if lines else "it said nothing"
