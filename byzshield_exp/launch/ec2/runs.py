"""Run one job on one gang: send its files, start torchrun on all hosts, fetch its results."""

import json
import secrets
import shlex
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from byzshield_exp.errors import ConfigError, RunError, printable
from byzshield_exp.launch.ec2 import gang as torchrun
from byzshield_exp.launch.ec2.cloud import OUTAGE_S, aws_errors
from byzshield_exp.launch.ec2.fleet import (
    LimitReached,
    Lost,
    Watched,
    bring_up,
    hosts_of,
    set_phase,
)
from byzshield_exp.launch.ec2.hosts import Host, Unreachable, on_all
from byzshield_exp.launch.ec2.options import Options
from byzshield_exp.launch.ec2.reach import Place, place_of
from byzshield_exp.launch.ec2.resources import Control
from byzshield_exp.launch.ec2.state import GangState, JobState
from byzshield_exp.notices import say, warn

_PREPARE_S = 3600.0
_FETCH_ATTEMPTS = 3
_UNPACK_S = 600.0
_NOT_SENT = ("job.json", "status.json")  # of an earlier attempt


def jobs_of(paths: Sequence[Path]) -> list[JobState]:
    """Return new jobs for some job files.

    Raises:
        ConfigError: if a file cannot be read.
    """
    return [JobState(str(path.resolve()), str(_read_job(path)["name"])) for path in paths]


def check_jobs(jobs: list[JobState], options: Options) -> None:
    """Refuse jobs that do not fit a gang, before anything is rented.

    Raises:
        ConfigError: for the first one that does not fit.
    """
    for job in jobs:
        cluster = _config(job)["cluster"]
        if cluster["num_processes"] != options.world_size:
            raise ConfigError(
                f"cluster.num_processes={cluster['num_processes']} of {job.name}: a gang has "
                f"{options.world_size} processes (1 server, workers={options.workers} times "
                f"processes={options.processes}); choose cluster=processes"
            )


def do(control: Control, gang: GangState, job: JobState, stop: threading.Event) -> None:
    """Run a job on a gang, or go on watching it; the job's phase says how it ended.

    Raises:
        Lost: if the gang cannot go on.
        Stopped: if the driver is stopping.
        LimitReached: if ``max_hours`` or ``max_usd`` is reached.
    """
    transport = bring_up(control, gang, stop)
    try:
        _run_job(control, gang, job, transport)
    finally:
        transport.close()


def _run_job(control: Control, gang: GangState, job: JobState, transport: Watched) -> None:
    place = place_of(control)
    with aws_errors():
        hosts = tuple(hosts_of(control, gang))
    options = control.state.options
    known = gang.work if gang.job == job.path else None
    name = known or _new_work_name(control, gang)
    work = torchrun.Gang(
        name, hosts, (1, *[options.processes] * options.workers), f"{place.jobs}/{name}.json",
        python=place.python, folder=place.gangs, port=place.port, look_every_s=place.look_every_s,
        metadata=place.metadata,
        lost_after_s=OUTAGE_S,  # EC2 reports an ended instance sooner
    )  # fmt: skip
    target = Path(job.path).parent
    source = f"{place.outputs}/{job.name}"
    if known is None:
        _send_to_all(control, transport, hosts[:1] if place.is_shared else hosts, job, work.job)
        _send_results(transport, hosts[0], target, source, f"{place.jobs}/{name}.tar")
        gang.job, gang.work = job.path, name
        set_phase(control, gang, "running")
    say(f"{job.name}: on gang {gang.number}, attempt {job.attempts}")
    end = _watch(transport, work, source, target)
    trouble = _fetch_results(transport, hosts[0], source, target, place.look_every_s)
    if isinstance(trouble, Unreachable):  # nobody knows how the run ended
        raise trouble
    _record_end(control, gang, job, _failure(end, hosts[0], target, trouble))


def _watch(transport: Watched, work: torchrun.Gang, source: str, target: Path) -> torchrun.GangEnd:
    """Watch a gang to its end; if that fails, still fetch the results so far.

    Raises:
        Lost: if hosts are lost.
    """
    try:
        end = torchrun.run_gang(transport, work)
    except BaseException:
        with suppress(RunError):  # the job makes a checkpoint if there is time
            torchrun.end_gang(transport.transport, work)
        with suppress(RunError):
            transport.fetch_at_last(work.hosts[0], source, target)
        raise
    if end.lost:
        with suppress(RunError):
            transport.fetch_at_last(work.hosts[0], source, target)
        raise Lost("; ".join(f"{host}: {why}" for host, why in end.lost.items()))
    return end


def _new_work_name(control: Control, gang: GangState) -> str:
    """Return a new name: the same run may come to the same gang again."""
    return f"{control.state.fleet}.{gang.number}.{secrets.token_hex(4)}"


def _failure(
    end: torchrun.GangEnd, server: Host, target: Path, trouble: RunError | None
) -> str | None:
    """Return why a run has failed; None if it is done.

    ``status.json`` counts only if the exit code agrees: it may be of an earlier attempt.

    Raises:
        Lost: if the job was asked to end, but not by this driver.
    """
    if trouble is not None:
        return f"its results did not come back: {trouble}"
    status, is_well = _status(target), end.codes.get(server.name) == 0
    state = status.get("state")
    if is_well and state == "done":
        return None
    if not is_well and state == "stopped":  # torchrun's exit code is 1 then
        raise Lost("the job was asked to end, so its instances are being taken back")
    error = status.get("error") if state == "failed" else None
    return printable(str(error or _last_line(end.output)))  # a host may write control characters


def _record_end(control: Control, gang: GangState, job: JobState, failure: str | None) -> None:
    with control.store.lock:
        job.phase = "done" if failure is None else "failed"
        job.error = failure
        gang.job, gang.work, gang.phase = None, None, "ready"
        control.save()
    say(f"{job.name}: {job.phase}{'' if failure is None else f': {failure}'}")


def _fetch_results(
    transport: Watched, host: Host, source: str, target: Path, pause_s: float
) -> RunError | None:
    """Copy the results here, in several attempts; return the last error if all fail."""
    trouble = None
    for attempt in range(_FETCH_ATTEMPTS):
        try:
            transport.fetch(host, source, target)
        except RunError as error:
            if isinstance(error, Lost | LimitReached):  # raised by the check, not by the copy
                raise
            trouble = error
            if attempt < _FETCH_ATTEMPTS - 1:
                transport.pause(pause_s)
        else:
            return None
    return trouble


def _send_to_all(
    control: Control, transport: Watched, hosts: Sequence[Host], job: JobState, target: str
) -> None:
    """Prepare the job's data on all hosts, and send the job with its paths there."""
    place, retry_s = place_of(control), control.state.options.retry_s

    def send(host: Host) -> None:
        content = _read_job(Path(job.path))
        config = content["config"]
        config["output_dir"] = place.outputs
        cluster = config["cluster"]
        if cluster.get("backend", "auto") == "auto" and cluster.get("server_plays") is not True:
            cluster["backend"] = "sockets"  # outlives a host that is taken back
        _prepare_data(transport, host, place, config, retry_s)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "job.json"
            path.write_text(json.dumps(content))
            transport.send(host, path, target)

    for answer in on_all(hosts, send):
        if isinstance(answer, Unreachable):
            raise answer


def _prepare_data(
    transport: Watched, host: Host, place: Place, config: dict[str, Any], retry_s: float
) -> None:
    """Download an official data set on a host; ``prepare`` holds a lock and does it once.

    The user's own data must already be on the hosts, where the configuration says.

    Raises:
        Lost: if the download fails twice.
    """
    from byzshield_exp.datasets.official import OFFICIAL  # imports torch

    dataset = config["choices"]["dataset"]
    if dataset not in OFFICIAL:
        return
    config["dataset"]["root"] = place.data
    command = [place.python, "-m", "byzshield_exp", "prepare", f"dataset={dataset}"]
    command += [f"dataset.root={place.data}"]
    if config["dataset"].get("extra"):
        command += ["dataset.extra=true"]  # the extra images of SVHN
    script = shlex.join(command)
    ended = transport.run(host, script, _PREPARE_S)
    if ended.code != 0:
        warn(f"{host.name}: dataset={dataset}: {_last_line(ended.output)}; tried once more")
        transport.pause(retry_s)
        ended = transport.run(host, script, _PREPARE_S)
    if ended.code != 0:
        raise Lost(f"{host.name}: dataset={dataset}: {_last_line(ended.output)}")


def _send_results(transport: Watched, host: Host, here: Path, there: str, archive: str) -> None:
    """Send an earlier gang's results of a run to a host, which resumes from them.

    A host that has the folder keeps it.

    Raises:
        RunError: if the results cannot be read here.
        Lost: if they cannot be written there.
    """
    from byzshield_exp.results.checkpoint import FOLDER  # imports torch

    if not (here / FOLDER).is_dir():
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.tar"
        try:
            with tarfile.open(path, "w") as content:
                content.add(here, ".", filter=_sent_files)
        except OSError as error:
            raise RunError(f"{here} cannot be read: {error}") from error
        transport.send(host, path, archive)
    ended = transport.run(host, _unpack_script(archive, there), _UNPACK_S)
    if ended.code != 0:
        raise Lost(f"{host.name}: {there} cannot be written: {_last_line(ended.output)}")


def _sent_files(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = PurePosixPath(member.name).name
    return None if name.startswith(".") or name in _NOT_SENT else member


def _unpack_script(archive: str, folder: str) -> str:
    """Return a script that extracts an archive to a folder, all of it or nothing."""
    packed, place, partial = map(shlex.quote, (archive, folder, f"{folder}.partial"))
    return f"""\
set -e
if [ ! -e {place} ]; then
    rm -rf {partial}
    mkdir -p {partial}
    tar -xf {packed} -C {partial}
    mv {partial} {place}
fi
rm -f {packed}
"""


def _config(job: JobState) -> dict[str, Any]:
    return dict(_read_job(Path(job.path))["config"])


def _read_job(path: Path) -> dict[str, Any]:
    try:
        content = dict(json.loads(path.read_text()))
        return {"name": content["name"], "config": dict(content["config"])} | content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the job {path} cannot be read: {error}") from error


def _status(folder: Path) -> dict[str, Any]:
    """Return the content of a run's ``status.json``; empty if there is none."""
    try:
        return dict(json.loads((folder / "status.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1][-500:] if lines else "it said nothing"
