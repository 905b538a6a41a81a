"""The base of our launchers; Hydra searches no module with a leading _ for plugins."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class JobLauncher(Launcher):
    """Runs jobs that the sweeper wrote: files with everything that a run needs."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Do nothing: the jobs hold all that is needed."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run jobs, each given as ``job=PATH``; return the error of each.

        Raises:
            ConfigError: before the first job, if a key of the launcher is wrong.
            RunError: if the launcher cannot go on.
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
        """Run jobs, given by their files; return the error of each, None where it is done."""
