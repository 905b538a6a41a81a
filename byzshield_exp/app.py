"""The command line: read the configuration, check it, run it, say where the results are."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from byzshield_exp import config as configuration
from byzshield_exp.clusters import Cluster, Group, join_torchrun, run_ranks
from byzshield_exp.errors import ConfigError, RunError, Stopped
from byzshield_exp.experiment import Experiment, build
from byzshield_exp.folders import RunFolder
from byzshield_exp.notices import say, warn
from byzshield_exp.train import describe_job, play, run_rank, train

configuration.register()
_wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
EXIT_STOPPED = 75  # EX_TEMPFAIL: SIGTERM came, a checkpoint was written, try again
_failures: list[Exception] = []
_torchrun: list[Group] = []  # the group that torchrun started, once it is joined
_PRELOAD = ("byzshield_exp.train", "byzshield_exp.networks", "byzshield_exp.datasets")


@hydra.main(version_base="1.3", config_path=configuration.conf_dir(), config_name="config")
def main(cfg: DictConfig) -> float | None:
    """One run; returns the final accuracy in [0, 1] for sweepers."""
    try:
        return run(cfg)
    except Exception as error:
        if _wants_traceback or _is_elsewhere():
            raise
        if isinstance(error, Stopped):
            _complain(error)
            sys.exit(EXIT_STOPPED)  # and the rest of a sweep with it
        if isinstance(error, ConfigError) and cfg.on_invalid == "skip":
            print(f"skipped: {error}", flush=True)
        else:
            _complain(error)
            _failures.append(error)  # the other points of a sweep go on
        return None


def _is_elsewhere() -> bool:
    """Whether a launcher runs this in another process, from which it brings exceptions back."""
    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    return in_sweep and hydra_config.runtime.choices["hydra/launcher"] != "basic"


def run(cfg: DictConfig) -> float | None:
    """Check, announce and do one run.

    Raises:
        ConfigError: before any worker starts.
        RunError: when a started run cannot go on.
    """
    config = configuration.plain(cfg)
    _check_torchrun(config)
    experiment = build(config)
    experiment.make_optimizer(experiment.params.clone())  # checks its arguments
    folder = RunFolder(Path(config["output_dir"]) / configuration.run_name(cfg))
    data = experiment.dataset.digest.hex()
    if config["plan"]:
        folder.look(config, configuration.differing_keys, data)
        _announce(config, experiment, folder)
        return None
    with folder.open(config, configuration.differing_keys, data):
        _announce(config, experiment, folder)
        judge = experiment.dataset.judge
        if folder.finished:
            summary = folder.finished
        elif config["cluster"]["num_processes"] == 1:
            summary = train(experiment, config, folder.path) or {}
        else:
            job = describe_job(config, folder.path, experiment.worst)
            del experiment  # the ranks have data of their own
            torch.cuda.empty_cache()
            summary = json.loads(_play_together(config, job))
    accuracy = summary[f"final_{judge}_accuracy"]
    end = (
        f"diverged at step {summary['diverged_at_step']}" if summary["diverged_at_step"] else "done"
    )
    say(
        f"{end}: {judge} accuracy {accuracy:.4f} after {summary['steps']} steps "
        f"({summary['seconds_per_step']:.3f} s each), results in {folder.path}"
    )
    return float(accuracy)


def _announce(config: Mapping[str, Any], experiment: Experiment, folder: RunFolder) -> None:
    say(_headline(config, experiment))
    for note in (*experiment.notes, *folder.notes):
        warn(note)
    if config["cluster"]["num_processes"] > 1:
        say(_bearable(config, experiment))
    say(f"{folder.state}: {folder.path}")


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


def _play_together(config: Mapping[str, Any], job: str) -> str:
    """Do a job in several processes; the summary as JSON."""
    if configuration.started_by_torchrun() is None:
        ranks = config["cluster"]["num_processes"]
        return run_ranks(run_rank, ranks, job, _PRELOAD) or "{}"
    if not _torchrun:
        _torchrun.append(join_torchrun())
    group = _torchrun[0]
    group.run += 1
    group.tell(job)
    return play(group, job) or "{}"


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


def _check_torchrun(config: Mapping[str, Any]) -> None:
    world_size = configuration.started_by_torchrun()
    if world_size is None:
        return
    if config["choices"]["cluster"] != "processes":
        raise ConfigError(
            f"cluster={config['choices']['cluster']} under torchrun: leave it out, "
            f"its {world_size} processes are the cluster"
        )
    if config["cluster"]["num_processes"] != world_size:
        raise ConfigError(
            f"cluster.num_processes={config['cluster']['num_processes']} under torchrun must be "
            f"its number of processes, {world_size}"
        )


def cli(arguments: list[str] | None = None) -> None:
    """The command line; exits with 2 for a bad configuration, 1 for a failed run."""
    sys.argv[1:] = _with_torchrun(sys.argv[1:] if arguments is None else arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, and the lines below print
    signal.signal(signal.SIGTERM, _terminate)
    _failures.clear()
    try:
        main()
        _end_torchrun()
    except KeyboardInterrupt:
        _complain("interrupted; the same command resumes")
        sys.exit(130)
    except Exception as error:
        if _wants_traceback:
            raise
        _complain(error)
        _failures.append(error)
    finally:
        if not _wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]
    if _failures:
        sys.exit(2 if all(_is_bad_input(error) for error in _failures) else 1)


def _is_bad_input(error: Exception) -> bool:
    return isinstance(error, ConfigError | HydraException | OmegaConfBaseException | OSError)


def _with_torchrun(arguments: list[str]) -> list[str]:
    """Under torchrun the cluster is its processes, unless the arguments say something else."""
    world_size = configuration.started_by_torchrun()
    if world_size is None:
        return arguments
    added = {"cluster=": "processes", "cluster.num_processes=": str(world_size)}
    missing = [key for key in added if not any(given.startswith(key) for given in arguments)]
    if any(given.startswith("cluster=local") for given in arguments):
        missing = []
    return arguments + [key + added[key] for key in missing]


def _end_torchrun() -> None:
    while _torchrun:
        group = _torchrun.pop()
        group.tell("")
        group.close()


def _complain(error: BaseException | str) -> None:
    if isinstance(error, HydraException | OmegaConfBaseException):
        error = configuration.one_line(error)
    elif isinstance(error, OSError):
        error = f"output_dir cannot be written: {error}"  # Hydra's; our own are ConfigErrors
    elif isinstance(error, BaseException) and not isinstance(
        error, ConfigError | RunError | Stopped
    ):
        error = f"{type(error).__name__}: {error}"
    print(f"byzshield_exp: {error}", file=sys.stderr, flush=True)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(128 + signal_number)
