"""What our launchers have in common; Hydra does not search modules of such a name for plugins."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class JobLauncher(Launcher):
    """Does jobs that the sweeper wrote: files with everything that a run needs."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """All that is needed is in the jobs."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do jobs, each given as ``job=PATH``; what is returned for each is its error.

        Raises:
            ConfigError: if the launcher's keys do not fit, before the first one.
            RunError: if it cannot go on.
        """
        paths = [Path(overrides[-1].partition("=")[2]) for overrides in job_overrides]
        return [
            JobReturn(
                _return_value=error,
                status=JobStatus.COMPLETED if error is None else JobStatus.FAILED,
            )
            for error in self.perform(paths)
        ]

    @abstractmethod
    def perform(self, paths: Sequence[Path]) -> Sequence[Exception | None]:
        """Do jobs, given by their files; returns the error of each."""
