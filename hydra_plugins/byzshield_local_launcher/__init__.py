"""The launcher of this machine: every run of a sweep in processes of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LocalLauncherConf:
    """The keys of ``hydra.launcher``.

    Attributes:
        runs: side by side; they share the cores.
        runs_per_gpu: instead, the runs that share a GPU; None: ``runs`` counts.
    """

    _target_: str = "hydra_plugins.byzshield_local_launcher.LocalLauncher"
    runs: int = 1
    runs_per_gpu: int | None = None


ConfigStore.instance().store(
    group="hydra/launcher", name="local", node=LocalLauncherConf, provider="byzshield_exp"
)


class LocalLauncher(Launcher):
    """A number of runs at a time; the next starts when one is over."""

    def __init__(self, runs: int, runs_per_gpu: int | None) -> None:
        self._runs, self._runs_per_gpu = runs, runs_per_gpu

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """All that is needed is in the jobs."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do jobs, each given as ``job=PATH``."""
        from byzshield_exp.pool import perform_all

        paths = [Path(overrides[-1].partition("=")[2]) for overrides in job_overrides]
        errors = perform_all(paths, self._runs, self._runs_per_gpu)
        return [
            JobReturn(
                _return_value=error,
                status=JobStatus.COMPLETED if error is None else JobStatus.FAILED,
            )
            for error in errors
        ]
