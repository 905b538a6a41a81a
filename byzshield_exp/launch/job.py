"""Describe a run so completely that any machine with this package can do it: a job."""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from byzshield_exp.clusters import Seats
from byzshield_exp.clusters.backend import chosen_backend, server_plays
from byzshield_exp.datasets import has_known_pictures, is_missing
from byzshield_exp.errors import ConfigError
from byzshield_exp.files import expand_user, write_atomically
from byzshield_exp.notices import logged, note, say, warn
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.results.outcome import final_accuracy
from byzshield_exp.results.sources import own_sources
from byzshield_exp.results.status import LOG, read_status, recorded, write_status
from byzshield_exp.training.experiment import Experiment, build
from byzshield_exp.training.gpu_memory import GpuMemory, full_memory_named, gpu_need
from byzshield_exp.training.protocol import traits_of

JOB = "job.json"

# What is told of a run: it gets the run, and returns its summary.
Watch = Callable[[Callable[[], dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True)
class LauncherTraits:
    """How a launcher runs jobs.

    Attributes:
        runs_locally: whether jobs run on this machine.
        draws_bars: whether it shows how far the runs are.
        fetches_data: whether the launcher fetches data sets that its machines lack.
        reattaches: whether it finds runs that it started earlier, and waits for them.
        cleans_up: whether it is called even when no run is left to do.
    """

    runs_locally: bool = True
    draws_bars: bool = False
    fetches_data: bool = False
    reattaches: bool = False
    cleans_up: bool = False


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: name of the run's folder.
        config: plain and resolved configuration.
        data: digest of the data set; empty if it is not known yet.
        worst: the worst case. All ranks must use the same one: a search that reaches its time limit
            would find another one on another machine.
        lines: description for the user.
        notes: warnings, one line each.
        code: digests of the user's own code, by file.
    """

    name: str
    config: dict[str, Any]
    data: str
    worst: dict[str, Any]
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    code: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of the run's results."""
        return expand_user(self.config["output_dir"]) / self.name

    @property
    def file(self) -> Path:
        """The job file."""
        return self.folder / JOB

    def save(self) -> None:
        """Write the job file into the run's folder; a job that is started twice goes on.

        Raises:
            ConfigError: if the file cannot be written.
        """
        content = {**asdict(self), "config": {**self.config, "overwrite": False}}
        try:
            write_atomically(self.file, json.dumps(content, indent=2).encode())
        except OSError as error:
            where = self.config["output_dir"]
            raise ConfigError(f"output_dir={where} cannot be written: {error}") from error


def load(path: Path) -> Job:
    """Read a job file; a relative ``output_dir`` becomes the folder that the file lies in.

    Raises:
        ConfigError: if the file cannot be read or holds no job.
    """
    try:
        said = json.loads(path.read_text())
        if not expand_user(said["config"]["output_dir"]).is_absolute():
            said["config"]["output_dir"] = str(path.absolute().parents[1])
        return Job(**{**said, "lines": tuple(said["lines"]), "notes": tuple(said["notes"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"the job {path} cannot be read: {error}") from error


class Described(NamedTuple):
    """A job, and the parts that were built to check it."""

    job: Job
    experiment: Experiment


@full_memory_named()
def describe(
    config: Mapping[str, Any], name: str, where: LauncherTraits | None = None
) -> Described:
    """Check a configuration by building all parts of its run.

    Args:
        config: plain and resolved configuration.
        name: of the run, as far as its data do not tell it from others.
        where: the launcher that will run it in new processes; None: it runs in this process, with
            the parts that are returned.

    Raises:
        ConfigError: in one line, with the key, the value and the bound.
        RunError: if a GPU's memory is full.
    """
    experiment = build(_buildable_here(config, where) if where else config)
    config = {**config, "steps": experiment.steps}
    digest = "" if _is_fetched_there(config, where) else experiment.dataset.digest.hex()
    experiment.make_optimizer(experiment.params.clone())  # checks its arguments
    lines = [
        _headline(config, experiment),
        *_cluster_lines(config, experiment),
        *_gpu_lines(config, experiment),
    ]
    if not has_known_pictures(config["choices"]["dataset"]):
        name = f"{name},data={digest[:8]}"
    job = Job(
        name, config, digest, asdict(experiment.worst), tuple(lines), experiment.notes,
        own_sources(config),
    )  # fmt: skip
    return Described(job, experiment)


def _buildable_here(config: Mapping[str, Any], where: LauncherTraits) -> dict[str, Any]:
    """Adapt the configuration so that this process, which will not train, can build it."""
    if where.runs_locally and config["device"] == "cuda" and torch.cuda.device_count() == 0:
        raise ConfigError("device=cuda: torch sees no GPU on this machine")
    built = {**config, "device": "cpu"}
    if _is_fetched_there(config, where):
        options = config["dataset"]
        built["dataset"] = {
            "_target_": "byzshield_exp.datasets.stand_in",
            "dataset": config["choices"]["dataset"],
            **{key: options[key] for key in ("num_validation", "extra") if key in options},
        }
    return built


def _is_fetched_there(config: Mapping[str, Any], where: LauncherTraits | None) -> bool:
    return bool(where and where.fetches_data and missing_data(config))


def missing_data(config: Mapping[str, Any]) -> str:
    """Say that a data set which can be fetched is not on this machine; empty if it is."""
    dataset, root = config["choices"]["dataset"], str(config["dataset"].get("root", ""))
    if not is_missing(dataset, root):
        return ""
    return (
        f"dataset={dataset} is not in dataset.root={root}, which a plan can do without: fetch it "
        f"with byzshield prepare dataset={dataset} dataset.root={shlex.quote(root)}"
    )


def perform(job: Job, do: Callable[[Job], dict[str, Any]], echo: bool = True) -> dict[str, Any]:
    """Run a job unless it is finished; return its summary.

    Args:
        job: the run.
        do: trains and returns the summary.
        echo: whether the run's lines also go to the terminal; the last one always does.

    Raises:
        ConfigError: if the run's folder is in use, or holds another run.
        Stopped: at SIGTERM, after a checkpoint.
        RunError: if the run cannot go on.
    """
    folder = RunFolder(job.folder)
    with folder.open(job.config, job.data, job.code), logged(folder.path / LOG, echo):
        announce(job, folder)
        if folder.finished:
            summary = folder.finished
            if read_status(folder.path).get("state") != "done":  # killed just before writing this
                write_status(folder.path, state="done", error=None, rank=None)
        else:
            with recorded(folder.path):
                summary = do(job)
        outcome = _outcome(job, summary)
        note(outcome)
    say(outcome)
    return summary


def announce(job: Job, folder: RunFolder) -> None:
    """Tell the user what will run, and where its results are."""
    say(job.lines[0])
    for line in (*job.notes, *folder.notes):
        warn(line)
    for line in job.lines[1:]:
        say(line)
    say(f"{folder.told}: {folder.path}")


def _outcome(job: Job, summary: Mapping[str, Any]) -> str:
    name, accuracy = final_accuracy(summary)
    diverged = summary["diverged_at_step"]
    end = f"diverged at step {diverged}" if diverged else "done"
    return (
        f"{end}: {name.replace('_', ' ')} {accuracy:.4f} after {summary['steps']} steps "
        f"({summary['seconds_per_step']:.3f} s each), results in {job.folder}"
    )


def _headline(config: Mapping[str, Any], experiment: Experiment) -> str:
    assignment, choices = experiment.assignment, config["choices"]
    if not traits_of(config).has_server:
        cheat = f", {choices['cheat']}" if experiment.cheats else ""
        return (
            f"{choices['approach']} + {choices['aggregator']}: K={assignment.num_workers} peers; "
            f"q={experiment.num_byzantine} liars ({choices['adversary']}, {choices['attack']}"
            f"{cheat}); {_task(config, experiment)}"
        )
    won = experiment.num_corrupt
    return (
        f"{choices['approach']} + {choices['aggregator']}: K={assignment.num_workers} workers, "
        f"f={assignment.num_files} files, r={assignment.replication} "
        f"(majority {assignment.majority}), l={assignment.load}; "
        f"q={experiment.num_byzantine} liars ({choices['adversary']}, {choices['attack']}) can win "
        f"{won} file{'s' * (won != 1)}, epsilon_hat={experiment.epsilon_hat:.2f}; "
        f"{_task(config, experiment)}"
    )


def _task(config: Mapping[str, Any], experiment: Experiment) -> str:
    """Network, data and batch."""
    choices, num_files = config["choices"], experiment.assignment.num_files
    return (
        f"{choices['network']} on {choices['dataset']}, d={len(experiment.params):,}, "
        f"batch {experiment.batches.batch_size} = {num_files} x {experiment.batches.file_size}"
        f"{_epochs(config, experiment)}"
    )


def _epochs(config: Mapping[str, Any], experiment: Experiment) -> str:
    epochs = config.get("epochs")
    return "" if epochs is None else f", epochs={epochs}: {experiment.steps} steps"


def _cluster_lines(config: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """Say what carries the rows, who plays, and what may be lost."""
    options, assignment = config["cluster"], experiment.assignment
    backend, count = chosen_backend(config), options["num_processes"]
    if backend == "alone" or (backend == "sockets" and count == 1):
        return []
    plays = count == 1 or server_plays(config, backend)
    if not traits_of(config).has_server:
        does = "carries posts and plays peers" if plays else "carries posts and follows"
        lost = "who is silent or lost is banned" if backend == "sockets" else "none may be lost"
        return [f"{count} processes of peers over {backend}: rank 0 {does}; {lost}"]
    if backend != "sockets":
        does = "is the parameter server and plays workers" if plays else "is the parameter server"
        ranks = "rank" if count == 1 else "ranks"
        return [f"{count} {ranks} over {backend} (torch {torch.__version__}): rank 0 {does}"]
    needed = assignment.majority if options["majority_of"] == "all" else 1
    bearable = Seats(assignment, count).bearable(needed)
    return [
        f"{count - 1} worker processes, of which any {bearable} may be silent or lost: every file "
        f"keeps {needed} of its {assignment.replication} replicas"
    ]


def _gpu_lines(config: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """Say what the server needs of its GPU; refuse what cannot fit into that of this process."""
    if config["device"] != "cuda":
        return []
    backend, count = chosen_backend(config), config["cluster"]["num_processes"]
    seats = Seats(experiment.assignment, count, server_plays(config, backend))
    need = gpu_need(experiment, config, seats, 0, backend)
    if count > 1:
        return [f"rank 0 {need.line()}"]
    if experiment.params.device.type == "cpu":  # a launcher runs it elsewhere
        return [need.line()]
    memory = GpuMemory.here()
    need.check(memory)
    return [need.line(memory)]
