"""Several runs on this machine, each in processes of its own: a crash of one is its own."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from byzshield_exp import interrupts
from byzshield_exp.clusters import start_forkserver, torchrun_size
from byzshield_exp.errors import ConfigError, RunError, Stopped
from byzshield_exp.launch.job import Job, load, perform
from byzshield_exp.launch.ranks import in_processes, over_torchrun, preload
from byzshield_exp.notices import complain

_HEAR_S = 1.0


def perform_all(
    paths: Sequence[Path], runs: int, runs_per_gpu: int | None = None
) -> list[Exception | None]:
    """Do jobs, a number of them at a time; when one fails, the rest goes on.

    Args:
        paths: of the jobs.
        runs: side by side, from 1; they share the cores.
        runs_per_gpu: instead, the runs that share a GPU.

    Returns:
        For each job, its error.

    Raises:
        ConfigError: if a number is out of range, or there is no GPU for them.
        Stopped: at SIGTERM, when the runs that were going on have ended in order.
    """
    gpus = torch.cuda.device_count()  # initialises nothing
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
        return [_perform(path, over_torchrun, echo=True) for path in paths]
    start_forkserver(preload())  # here, as signals are heard in the main thread
    return _Pool(runs, gpus).perform(paths)


def _perform(path: Path, do: Callable[[Job], dict[str, Any]], echo: bool) -> Exception | None:
    try:
        perform(load(path), do, echo)
    except Stopped as error:
        if threading.current_thread() is threading.main_thread():
            raise  # and the rest of the sweep with it
        return error
    except Exception as error:
        foreseen = isinstance(error, ConfigError | RunError | OSError)
        complain(f"byzshield_exp: {'' if foreseen else f'{type(error).__name__}: '}{error}")
        return error
    return None


class _Pool:
    def __init__(self, runs: int, gpus: int) -> None:
        self._runs, self._gpus = runs, max(1, gpus)
        self._free = list(range(runs))  # places

    def perform(self, paths: Sequence[Path]) -> list[Exception | None]:
        threads = ThreadPoolExecutor(self._runs)
        with interrupts.heard():
            try:
                ends = [threads.submit(self._take, path) for path in paths]
                while wait(ends, _HEAR_S).not_done:
                    pass  # a signal that the system gave to another thread is heard only here
                errors = [end.result() for end in ends]
            except BaseException:  # Ctrl-C
                interrupts.request()
                raise
            finally:
                with interrupts.ignored():  # more of them while the runs end in order
                    threads.shutdown(cancel_futures=True)
            if interrupts.requested():
                raise Stopped("stopped by SIGTERM; the same command resumes")
            return errors

    def _take(self, path: Path) -> Exception | None:
        if interrupts.requested():
            return None
        place = self._free.pop(0)  # there are as many as threads

        def train(job: Job) -> dict[str, Any]:
            first_gpu, echo = place % self._gpus, self._runs == 1
            return in_processes(job, echo=echo, first_gpu=first_gpu, runs=self._runs)

        try:
            return _perform(path, train, echo=self._runs == 1)
        finally:
            self._free.append(place)
