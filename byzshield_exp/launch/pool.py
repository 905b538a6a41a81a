"""Run several jobs on this machine, each in its own processes, so that a crash ends only one."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from byzshield_exp import interrupts
from byzshield_exp.clusters import start_forkserver, torchrun_size
from byzshield_exp.errors import ConfigError, RunError, Stopped, typed
from byzshield_exp.launch.bars import Bars
from byzshield_exp.launch.job import Job, Watch, load, perform
from byzshield_exp.launch.ranks import in_processes, over_torchrun, preload
from byzshield_exp.notices import complain

_WAKE_S = 1.0


def perform_all(
    paths: Sequence[Path],
    runs: int,
    runs_per_gpu: int | None = None,
    watches: Mapping[Path, Watch] | None = None,
) -> list[Exception | None]:
    """Run jobs, several at a time; when one fails, the others go on.

    Args:
        paths: job files.
        runs: how many run side by side, at least 1; they share the cores.
        runs_per_gpu: how many share a GPU, at least 1; replaces ``runs``.
        watches: what is told of a job's run, by its file; it is called in this process.

    Returns:
        The error of each job, None where it is done.

    Raises:
        ConfigError: if a number is out of range, or there is no GPU.
        Stopped: at SIGTERM or Ctrl-C, after the started runs have ended in order.
    """
    gpus = torch.cuda.device_count()  # does not initialise CUDA
    if runs_per_gpu is not None:
        if runs_per_gpu < 1:
            raise ConfigError(f"hydra.launcher.runs_per_gpu={runs_per_gpu} must be at least 1")
        if gpus == 0:
            raise ConfigError(f"hydra.launcher.runs_per_gpu={runs_per_gpu}: there is no GPU")
        runs = runs_per_gpu * gpus
    if runs < 1:
        raise ConfigError(f"hydra.launcher.runs={runs} must be at least 1")
    if torchrun_size() is not None:
        if runs > 1:
            raise ConfigError(f"hydra.launcher.runs={runs} under torchrun must be 1")
        return _perform_over_torchrun(paths, watches or {})
    start_forkserver(preload())  # in the main thread, as signal handlers need
    return _Pool(runs, gpus, [path.parent for path in paths], watches or {}).perform(paths)


def draws_bars() -> bool:
    """Whether :func:`perform_all` draws bars: on a terminal."""
    return sys.stdout.isatty()


def _perform_over_torchrun(
    paths: Sequence[Path], watches: Mapping[Path, Watch]
) -> list[Exception | None]:
    """Run jobs one after another in torchrun's processes, of which this is rank 0."""
    bars, echo = Bars([path.parent for path in paths], draws_bars()), not draws_bars()

    def perform_one(path: Path) -> Exception | None:
        def train(job: Job) -> dict[str, Any]:
            bars.begin(path.parent, job.config["steps"])
            return over_torchrun(job, echo)

        error = _perform(path, train, echo, watches.get(path))
        bars.end(path.parent)
        return error

    with bars.shown():
        return [perform_one(path) for path in paths]


def _perform(
    path: Path, do: Callable[[Job], dict[str, Any]], echo: bool, watch: Watch | None
) -> Exception | None:
    def run() -> dict[str, Any]:
        return perform(load(path), do, echo)

    try:
        watch(run) if watch else run()
    except Stopped as error:
        if threading.current_thread() is threading.main_thread():
            raise  # ends the rest of the sweep too
        return error
    except Exception as error:
        foreseen = isinstance(error, ConfigError | RunError | OSError)
        name = "" if echo else f"{path.parent.name}: "  # its headline was not shown
        complain(f"byzshield_exp: {name}{error if foreseen else typed(error)}")
        return error
    return None


class _Pool:
    def __init__(
        self, runs: int, gpus: int, folders: Sequence[Path], watches: Mapping[Path, Watch]
    ) -> None:
        self._runs, self._gpus, self._watches = runs, max(1, gpus), watches
        self._free_slots = list(range(runs))
        self._bars = Bars(folders, draws_bars())
        self._echo = runs == 1 and not draws_bars()

    def perform(self, paths: Sequence[Path]) -> list[Exception | None]:
        threads = ThreadPoolExecutor(self._runs)
        with interrupts.heard(), self._bars.shown():
            try:
                futures = [threads.submit(self._run, path) for path in paths]
                while wait(futures, _WAKE_S).not_done:
                    pass  # handlers run only in this thread, which sleeps if another got the signal
                errors = [future.result() for future in futures]
            except BaseException:  # Ctrl-C again
                interrupts.request()
                raise
            finally:
                with interrupts.ignored():  # further signals must not cut the orderly end short
                    threads.shutdown(cancel_futures=True)
            if interrupts.requested():
                raise interrupts.stopped("; the same command resumes")
            return errors

    def _run(self, path: Path) -> Exception | None:
        if interrupts.requested():
            return None
        slot = self._free_slots.pop(0)  # one for each thread

        def train(job: Job) -> dict[str, Any]:
            self._bars.begin(path.parent, job.config["steps"])
            first_gpu = slot % self._gpus
            return in_processes(job, echo=self._echo, first_gpu=first_gpu, runs=self._runs)

        try:
            return _perform(path, train, self._echo, self._watches.get(path))
        finally:
            self._bars.end(path.parent)
            self._free_slots.append(slot)
