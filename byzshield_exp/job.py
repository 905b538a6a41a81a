"""A job: one run, described so completely that any machine with this package can do it.

``python -m byzshield_exp.job JOB.json`` does it, alone or under torchrun; conf/ is not read.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from byzshield_exp.clusters import Cluster, Group, Node, join_torchrun, run_ranks, torchrun_size
from byzshield_exp.datasets import is_missing
from byzshield_exp.errors import ConfigError, RunError, Stopped
from byzshield_exp.experiment import Experiment, build
from byzshield_exp.files import typed_path, write_atomically
from byzshield_exp.folders import RunFolder
from byzshield_exp.notices import logged, say, warn
from byzshield_exp.status import LOG, read_status, recorded, write_status
from byzshield_exp.train import Part, follow_torchrun, play, run_rank

JOB = "job.json"
EXIT_STOPPED = 75  # EX_TEMPFAIL: SIGTERM came, a checkpoint was written, try again
_PRELOAD = ("byzshield_exp.train", "byzshield_exp.networks", "byzshield_exp.datasets")
# The server imports these as soon as it has an optimizer and a recorder: 2 s of every run of a
# sweep. They look for GPUs, which must not happen before the ranks are forked.
_PRELOAD_WITHOUT_GPU = ("torch._dynamo", "torch.utils.tensorboard.summary")
_torchrun: list[Group] = []  # the group that torchrun started, once it is joined


@dataclass(frozen=True)
class Where:
    """What a launcher's machines are.

    Attributes:
        is_here: whether they are this one.
        fetches_data: whether it fetches data that they lack.
        attaches: whether it finds runs that it has begun before, and waits for them.
        ends_what_is_left: whether it is asked also when there is nothing to do.
    """

    is_here: bool = True
    fetches_data: bool = False
    attaches: bool = False
    ends_what_is_left: bool = False


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: of its folder.
        config: plain and resolved.
        data: digest of the data set; empty where it is not known yet.
        worst: the worst case; all ranks must use the same, and a search that was ended would end
            elsewhere on another machine.
        lines: what it is, for a person.
        notes: one warning a line.
    """

    name: str
    config: dict[str, Any]
    data: str
    worst: dict[str, Any]
    lines: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its results are."""
        return typed_path(self.config["output_dir"]) / self.name

    def part(self, **place: Any) -> Part:
        """What its ranks are told."""
        return Part(
            self.config, str(self.folder.absolute()), {**self.worst}, data=self.data, **place
        )

    def save(self) -> Path:
        """Write it into its folder.

        Raises:
            ConfigError: if that cannot be written.
        """
        path = self.folder / JOB
        try:
            write_atomically(path, json.dumps(asdict(self), indent=2).encode())
        except OSError as error:
            where = self.config["output_dir"]
            raise ConfigError(f"output_dir={where} cannot be written: {error}") from error
        return path


def load(path: Path) -> Job:
    """Read a job; a relative ``output_dir`` is where it lies.

    Raises:
        ConfigError: if it cannot be read or is none.
    """
    try:
        said = json.loads(path.read_text())
        if not typed_path(said["config"]["output_dir"]).is_absolute():
            said["config"]["output_dir"] = str(path.absolute().parents[1])  # whence it is started
        return Job(**{**said, "lines": tuple(said["lines"]), "notes": tuple(said["notes"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"the job {path} cannot be read: {error}") from error


class Described(NamedTuple):
    """A job, and its parts as they were built to check it."""

    job: Job
    experiment: Experiment


def describe(config: Mapping[str, Any], name: str, where: Where | None = None) -> Described:
    """Check a configuration by building all parts of its run.

    Args:
        config: plain and resolved.
        name: of its folder.
        where: it will run, in processes of its own; None: here, with the parts that are returned.

    Raises:
        ConfigError: in one line, with the key, the value and the bound.
    """
    experiment = build(_here(config, where) if where else config)
    digest = "" if _is_fetched_there(config, where) else experiment.dataset.digest.hex()
    experiment.make_optimizer(experiment.params.clone())  # checks its arguments
    lines = [_headline(config, experiment)]
    if config["cluster"]["num_processes"] > 1:
        lines.append(_bearable(config, experiment))
    job = Job(name, {**config}, digest, asdict(experiment.worst), tuple(lines), experiment.notes)
    return Described(job, experiment)


def _here(config: Mapping[str, Any], where: Where) -> dict[str, Any]:
    """The configuration as it can be built in this process, which will not train."""
    if where.is_here and config["device"] == "cuda" and torch.cuda.device_count() == 0:
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


def _is_fetched_there(config: Mapping[str, Any], where: Where | None) -> bool:
    root = config["dataset"].get("root", "")
    return bool(
        where and where.fetches_data and is_missing(config["choices"]["dataset"], str(root))
    )


def perform(job: Job, do: Callable[[Job], dict[str, Any]], echo: bool = True) -> dict[str, Any]:
    """Do a job that is not finished yet; returns its summary.

    Args:
        job: the run.
        do: trains and returns the summary.
        echo: whether what it says is for the terminal too.

    Raises:
        ConfigError: if its folder is in use, or holds another run.
        Stopped: at SIGTERM, after a checkpoint.
        RunError: if it cannot go on.
    """
    folder = RunFolder(job.folder)
    with folder.open(job.config, job.data), logged(folder.path / LOG, echo):
        announce(job, folder)
        if folder.finished:
            summary = folder.finished
            if read_status(folder.path).get("state") != "done":  # killed just before it was said
                write_status(folder.path, state="done", error=None, rank=None)
        else:
            with recorded(folder.path):
                summary = do(job)
        say(_outcome(job, summary))
    return summary


def announce(job: Job, folder: RunFolder) -> None:
    """Say what will be done, and where."""
    say(job.lines[0])
    for note in (*job.notes, *folder.notes):
        warn(note)
    for line in job.lines[1:]:
        say(line)
    say(f"{folder.state}: {folder.path}")


def in_processes(job: Job, node: Node | None = None, **place: Any) -> dict[str, Any]:
    """Train in processes of their own, even if it is one; this one watches.

    Args:
        job: the run.
        node: this machine, where there are several.
        place: more entries of :class:`Part`.

    Returns:
        The summary; empty on a machine without the server.
    """
    count, text = job.config["cluster"]["num_processes"], job.part(**place).text
    return json.loads(run_ranks(run_rank, count, text, preload(), node) or "{}") or {}


def preload() -> tuple[str, ...]:
    """What is imported once for all ranks."""
    return _PRELOAD + (() if torch.cuda.device_count() else _PRELOAD_WITHOUT_GPU)


def in_this_process(job: Job) -> dict[str, Any]:
    """Train here; the data are checked against the job's."""
    return play(Group(), job.part().text) or {}


def over_torchrun(job: Job) -> dict[str, Any]:
    """Train in the processes that torchrun started; this is rank 0."""
    if not _torchrun:
        _torchrun.append(join_torchrun())
    group, text = _torchrun[0], job.part().text
    group.run += 1
    group.tell(text)
    return play(group, text) or {}


def end_torchrun() -> None:
    """Let the other ranks end, which wait for a run also where there was none to do."""
    if not _torchrun and (torchrun_size() or 1) > 1:
        _torchrun.append(join_torchrun())
    while _torchrun:
        group = _torchrun.pop()
        group.tell("")
        group.close()


def way_of(job: Job) -> Callable[[Job], dict[str, Any]]:
    """How a job is done in a process that does nothing else.

    Raises:
        ConfigError: if torchrun started another number of processes.
    """
    count, world_size = job.config["cluster"]["num_processes"], torchrun_size()
    if world_size not in (None, count):
        raise ConfigError(
            f"cluster.num_processes={count} under torchrun must be its number of processes, "
            f"{world_size}"
        )
    if count == 1:
        return in_this_process
    return in_processes if world_size is None else over_torchrun


def main(arguments: list[str]) -> int:
    """The command; returns the exit code: 0 done, 75 stopped, 1 failed, 2 bad input."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        job = load(Path(arguments[0]))
        perform(job, way_of(job))
        end_torchrun()
    except KeyboardInterrupt:
        _complain("interrupted; the same command resumes")
        return 130
    except Stopped as error:
        _complain(str(error))
        return EXIT_STOPPED
    except (ConfigError, OSError) as error:
        _complain(str(error))
        return 2
    except RunError as error:
        _complain(str(error))
        return 1
    return 0


def _complain(line: str) -> None:
    print(f"byzshield_exp.job: {line}", file=sys.stderr, flush=True)


def _outcome(job: Job, summary: Mapping[str, Any]) -> str:
    judge = next(key for key in summary if key.startswith("final_"))
    name = judge.removeprefix("final_").replace("_", " ")
    diverged = summary["diverged_at_step"]
    end = f"diverged at step {diverged}" if diverged else "done"
    return (
        f"{end}: {name} {summary[judge]:.4f} after {summary['steps']} steps "
        f"({summary['seconds_per_step']:.3f} s each), results in {job.folder}"
    )


def _headline(config: Mapping[str, Any], experiment: Experiment) -> str:
    assignment, choices = experiment.assignment, config["choices"]
    return (
        f"{choices['approach']} + {choices['aggregator']}: K={assignment.num_workers} workers, "
        f"f={assignment.num_files} files, r={assignment.replication} "
        f"(majority {assignment.majority}), l={assignment.load}; "
        f"q={experiment.num_byzantine} liars ({choices['adversary']}, {choices['attack']}) can win "
        f"{experiment.num_corrupt} files, epsilon_hat={experiment.epsilon_hat:.2f}; "
        f"{choices['network']} on {choices['dataset']}, d={len(experiment.params):,}, "
        f"batch {experiment.batches.batch_size} = {assignment.num_files} x "
        f"{experiment.batches.file_size}"
    )


def _bearable(config: Mapping[str, Any], experiment: Experiment) -> str:
    options, assignment = config["cluster"], experiment.assignment
    ranks = options["num_processes"] - 1
    needed = assignment.majority if options["majority_of"] == "all" else 1
    cluster = Cluster(Group(0, ranks + 1), assignment, reads_digests=False)
    count = cluster.bearable(needed)
    return (
        f"{ranks} worker processes, of which any {count} may be silent or lost: every file keeps "
        f"{needed} of its {assignment.replication} replicas"
    )


if __name__ == "__main__":
    if torchrun_size() and int(os.environ["RANK"]) > 0:
        follow_torchrun()
    else:
        if not sys.flags.safe_path:
            sys.path.append("")  # modules of the user's, as for the program itself
        sys.exit(main(sys.argv[1:]))
