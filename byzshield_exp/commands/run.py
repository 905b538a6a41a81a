"""The command line: read the configuration, check it, run it, say where the results are."""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from byzshield_exp.clusters import torchrun_size
from byzshield_exp.commands import config as configuration
from byzshield_exp.errors import ConfigError, RunError, Stopped
from byzshield_exp.launch.job import EXIT_STOPPED, Job, announce, describe, load, perform
from byzshield_exp.launch.ranks import end_torchrun, runner_for
from byzshield_exp.results.folder import RunFolder
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.loop import train

configuration.register()
_wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
_failures: list[Exception] = []


@hydra.main(version_base="1.3", config_path=configuration.conf_dir(), config_name="config")
def compose_and_run(cfg: DictConfig) -> float | None:
    """One run; returns the final accuracy in [0, 1].

    In a sweep a launcher calls it with nothing but the path of a job.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return do_point(Path(cfg.job))
    try:
        run(cfg)
    except Exception as error:
        if _wants_traceback:
            raise
        _failures.append(error)  # Hydra adds a line to what it brings back
        if isinstance(error, ConfigError) and cfg.on_invalid == "skip":
            print(f"skipped: {_failures.pop()}", flush=True)
    return None


def do_point(path: Path) -> float | None:
    """Do one job of a sweep in this process, for launchers that are not ours."""
    job = load(path)
    summary = perform(job, runner_for(job))
    return next(float(value) for key, value in summary.items() if key.startswith("final_"))


def run(cfg: DictConfig) -> None:
    """Check, announce and do one run.

    Raises:
        ConfigError: before any worker starts.
        RunError: when a started run cannot go on.
    """
    config = configuration.plain(cfg)
    _check_torchrun(config)
    job, experiment = describe(config, configuration.run_name(cfg))
    if config["plan"]:
        folder = RunFolder(job.folder)
        folder.inspect(config, job.data)
        announce(job, folder)
        return
    do = runner_for(job)
    if config["cluster"]["num_processes"] == 1:
        do = partial(_train, experiment)
    else:
        del experiment  # the ranks have data of their own
    perform(job, do)


def _train(experiment: Experiment, job: Job) -> dict[str, Any]:
    return train(experiment, job.config, job.folder) or {}


def _check_torchrun(config: dict[str, Any]) -> None:
    world_size = torchrun_size()
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


def main(arguments: list[str]) -> None:
    """The command line; exits with 2 for a bad configuration, 1 for a failed run."""
    sys.argv[1:] = _with_torchrun(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, and the lines below print
    signal.signal(signal.SIGTERM, _terminate)
    try:
        compose_and_run()
        if _failures:
            raise _failures.pop()
        end_torchrun()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the last words are not interrupted
        _complain("interrupted; the same command resumes")
        sys.exit(130)
    except Exception as error:
        if _wants_traceback and not isinstance(error, Stopped):
            raise
        _complain(error)
        sys.exit(_exit_code(error))
    finally:
        if not _wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]


def _exit_code(error: Exception) -> int:
    if isinstance(error, Stopped):
        return EXIT_STOPPED
    bad_input = ConfigError | HydraException | OmegaConfBaseException | OSError
    return 2 if isinstance(error, bad_input) else 1


def _with_torchrun(arguments: list[str]) -> list[str]:
    """Under torchrun the cluster is its processes, unless the arguments say something else."""
    world_size = torchrun_size()
    if world_size is None:
        return arguments
    added = {"cluster=": "processes", "cluster.num_processes=": str(world_size)}
    missing = [key for key in added if not any(given.startswith(key) for given in arguments)]
    if any(given.startswith("cluster=local") for given in arguments):
        missing = []
    return arguments + [key + added[key] for key in missing]


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
