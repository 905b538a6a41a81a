"""Start the processes of a run, and tell each of them its part."""

import json
import os
import signal
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from byzshield_exp.clusters import (
    AloneChannel,
    Channel,
    Node,
    Rendezvous,
    Torchrun,
    join,
    run_ranks,
    torchrun_size,
)
from byzshield_exp.clusters.backend import chosen_backend, resolved
from byzshield_exp.distortion import WorstCase
from byzshield_exp.errors import (
    ConfigError,
    LostServer,
    RunError,
    Stopped,
    place_of,
    printable,
    typed,
)
from byzshield_exp.launch.job import Job
from byzshield_exp.notices import complain, logged, note
from byzshield_exp.results.sources import changed_sources, own_sources
from byzshield_exp.results.status import LOG
from byzshield_exp.training.experiment import build
from byzshield_exp.training.gpu_memory import count_sharers, full_memory_named
from byzshield_exp.training.loop import train

_PRELOAD = ("byzshield_exp.training.loop", "byzshield_exp.networks", "byzshield_exp.datasets")
# The server imports this as soon as it has a recorder. It looks for GPUs, which must not happen
# before the ranks are forked.
_PRELOAD_WITHOUT_GPU = ("torch.utils.tensorboard.summary",)
_torchrun: list[Torchrun] = []  # once it is found


@dataclass(frozen=True)
class RankJob:
    """What every rank of a run needs to know; it travels as JSON.

    Attributes:
        config: plain and resolved configuration.
        folder: the run's folder.
        worst: the worst case; all ranks must use the same one.
        data: digest of the data set that the run was described with; empty: any data.
        code: digests of the user's own code then, by file; empty: any code.
        echo: whether the run's lines also go to the terminal.
        first_gpu: the GPU of rank 0; the other ranks take the next ones.
        runs: how many runs share this machine's cores.
        local_ranks: how many ranks of the run are on this machine; torchrun says it itself.
    """

    config: Mapping[str, Any]
    folder: str
    worst: dict[str, Any]
    data: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    echo: bool = True
    first_gpu: int = 0
    runs: int = 1
    local_ranks: int = 1

    @property
    def text(self) -> str:
        """The entries as JSON."""
        return json.dumps(asdict(self))


def rank_job(job: Job, **place: Any) -> RankJob:
    """Make the :class:`RankJob` of a job.

    Args:
        job: the run.
        place: more entries of :class:`RankJob`.
    """
    folder = str(job.folder.absolute())
    return RankJob(
        resolved(job.config), folder, {**job.worst}, data=job.data, code=job.code, **place
    )


def run_rank(rendezvous: Rendezvous, text: str) -> str | None:
    """Play one rank of a run, given as :attr:`RankJob.text`; rank 0 returns the summary as JSON."""
    channel = join(rendezvous, json.loads(text)["config"]["cluster"]["backend"])
    try:
        summary = play(channel, text)
        return None if summary is None else json.dumps(summary)
    finally:
        channel.close()


@full_memory_named()
def play(channel: Channel, text: str) -> dict[str, Any] | None:
    """Play this process's rank, given as :attr:`RankJob.text`; the server returns the summary.

    Raises:
        ConfigError: if the server's data, or any rank's copy of the user's own code, are not
            those of the run. Before the first step, the other ranks' data are compared with the
            server's.
        RunError: as :func:`train`.
    """
    part = RankJob(**json.loads(text))
    _select_gpu(part.config, channel.rank + part.first_gpu)
    worst = WorstCase(**{**part.worst, "workers": tuple(part.worst["workers"])})
    folder = Path(part.folder)
    with logged(folder / LOG, part.echo) if channel.rank == 0 else nullcontext():
        experiment = build(part.config, worst)
        if channel.rank == 0 and part.data not in ("", experiment.dataset.digest.hex()):
            raise ConfigError(
                f"dataset={part.config['choices']['dataset']} holds other data on this machine "
                "than where the run was described"
            )
        _check_code(part)
        return train(experiment, part.config, folder, channel, part.runs, _gpu_sharers(part))


def _check_code(part: RankJob) -> None:
    here = own_sources(part.config)
    both = here.keys() & part.code.keys()  # a machine may have a module among its installed ones
    changed = changed_sources(*({name: code[name] for name in both} for code in (part.code, here)))
    if changed:
        raise ConfigError(
            f"{changed} is another one here and now than where and when the run was described: "
            "the same command again takes it as it is now"
        )


def follow_torchrun() -> int:
    """Play the jobs that rank 0 sends under torchrun, until it sends none; return the exit code."""
    asked: list[int] = []
    torchrun = None
    # Rank 0 may never come. A Python handler would run only after the store has answered; the
    # system's default ends this process at once.
    _when_asked_to_end(signal.SIG_DFL)
    try:
        torchrun = Torchrun()
        while not asked and (job := torchrun.hear()):
            channel = torchrun.channel(json.loads(job)["config"]["cluster"]["backend"])
            _when_asked_to_end(lambda number, _: asked.append(number))  # rank 0 stops in order
            play(channel, job)
            _when_asked_to_end(signal.SIG_DFL)
    except LostServer:
        return 1  # the server has said why
    except Exception as error:
        is_ours = isinstance(error, ConfigError | RunError)
        if not is_ours and not place_of(error):
            raise
        line = f"rank {os.environ['RANK']}: {error if is_ours else typed(error)}"
        if torchrun is not None:
            torchrun.report(json.dumps([line, traceback.format_exc()]))
        complain(f"byzshield_exp: {line}")
        return 1
    torchrun.close()
    return 0


def _when_asked_to_end(do: Callable[[int, Any], None] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, do)


def _select_gpu(config: Mapping[str, Any], rank: int) -> None:
    """Spread the processes of a machine over its GPUs."""
    if config["device"] == "cuda" and torch.cuda.is_available():
        place = int(os.environ["LOCAL_RANK"]) if torchrun_size() else rank
        torch.cuda.set_device(place % torch.cuda.device_count())


def _gpu_sharers(part: RankJob) -> int:
    if part.config["device"] == "cpu":
        return 1
    ranks = int(os.environ["LOCAL_WORLD_SIZE"]) if torchrun_size() else part.local_ranks
    return count_sharers(ranks, part.runs, torch.cuda.device_count())


def in_processes(job: Job, node: Node | None = None, **place: Any) -> dict[str, Any]:
    """Train in new processes, even if it is only one; this process watches them.

    Args:
        job: the run.
        node: this machine's share, if a run has several machines.
        place: more entries of :class:`RankJob`.

    Returns:
        The summary; empty on a machine without the server.
    """
    count = job.config["cluster"]["num_processes"]
    text = rank_job(job, local_ranks=len(node.ranks) if node else count, **place).text
    return json.loads(run_ranks(run_rank, count, text, preload(), node) or "{}") or {}


def preload() -> tuple[str, ...]:
    """Return the modules that are imported once for all ranks."""
    return _PRELOAD + (() if torch.cuda.device_count() else _PRELOAD_WITHOUT_GPU)


def in_this_process(job: Job) -> dict[str, Any]:
    """Train in this process, on the data that the job was described with."""
    return play(AloneChannel(), rank_job(job).text) or {}


def over_torchrun(job: Job, echo: bool = True) -> dict[str, Any]:
    """Train in the processes that torchrun started, of which this is rank 0.

    Args:
        job: the run.
        echo: whether its lines also go to the terminal.

    Raises:
        RunError: if the run cannot go on; with the line of the rank whose own part failed.
        Stopped: if the run was asked to stop.
    """
    if not _torchrun:
        _torchrun.append(Torchrun())
    part = rank_job(job, echo=echo)
    _torchrun[0].tell(part.text)
    try:
        return play(_torchrun[0].channel(part.config["cluster"]["backend"]), part.text) or {}
    except (RunError, Stopped) as error:
        if failure := _torchrun[0].failure():
            line, text = map(printable, json.loads(failure))  # of another process
            note(text)
            raise RunError(f"{line}; {str(error).rpartition('; ')[2]}") from error
        raise


def end_torchrun() -> None:
    """Let torchrun's other ranks end; they wait for a job even if there was none to do."""
    if not _torchrun and (torchrun_size() or 1) > 1:
        _torchrun.append(Torchrun())
    while _torchrun:
        torchrun = _torchrun.pop()
        torchrun.tell("")
        torchrun.close()


def runner_for(job: Job) -> Callable[[Job], dict[str, Any]]:
    """Choose how to execute a job in a process that does nothing else.

    Raises:
        ConfigError: if torchrun started another number of processes.
    """
    count, world_size = job.config["cluster"]["num_processes"], torchrun_size()
    if world_size not in (None, count):
        raise ConfigError(
            f"cluster.num_processes={count} under torchrun must be its number of processes, "
            f"{world_size}"
        )
    backend = chosen_backend(job.config)
    if count == 1 and backend in ("alone", "sockets"):
        return in_this_process
    return in_processes if world_size is None else over_torchrun
