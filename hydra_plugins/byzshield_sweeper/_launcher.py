"""The base of our launchers; Hydra searches no module with a leading _ for plugins."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from byzshield_exp.errors import ConfigError, InUse
from hydra_plugins.byzshield_sweeper._points import composed_point, job_of

if TYPE_CHECKING:
    from byzshield_exp.launch.job import Watch


class JobLauncher(Launcher):
    """Runs jobs: files with everything that a run needs.

    Our sweeper has described and saved them; the points of another sweeper are described here.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra passes, for callbacks and for points of other sweepers."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run points; a return value is the final accuracy, or the error.

        Raises:
            ConfigError: before the first run, if a key of the launcher is wrong.
            RunError: if the launcher cannot go on.
        """
        found = [self._described(overrides) for overrides in job_overrides]
        paths = list(dict.fromkeys(one for one in found if isinstance(one, Path)))
        watches = {} if not OmegaConf.select(self._config, "hydra.callbacks") else {
            path: self._watch(path, job_overrides[found.index(path)], initial_job_idx + at)
            for at, path in enumerate(paths)
        }  # fmt: skip
        errors = dict(zip(paths, self.perform(paths, watches), strict=True))
        return [
            _returned(overrides, one, errors[one] if isinstance(one, Path) else None)
            for overrides, one in zip(job_overrides, found, strict=True)
        ]

    @abstractmethod
    def perform(
        self, paths: Sequence[Path], watches: Mapping[Path, "Watch"]
    ) -> Sequence[Exception | None]:
        """Run jobs, given by their files; return the error of each, None where it is done.

        Args:
            paths: the files.
            watches: what is told of their runs, for each file or for none.
        """

    def _described(self, overrides: Sequence[str]) -> Path | Exception | None:
        """Return a point's job file; the error if it cannot run; None if it is not to run."""
        given = job_of(overrides)
        if given is not None:
            return Path(given)
        from byzshield_exp.launch.job import LauncherTraits
        from byzshield_exp.launch.sweep import save_job
        from byzshield_exp.launch.sweep_points import check_points
        from byzshield_exp.notices import say, warn

        (point,) = check_points([overrides], self._compose, LauncherTraits(**self._where))
        if point.job is None:
            if self._config.on_invalid != "skip":
                return ConfigError(point.reason)
            warn(f"{point.title}: {point.reason}")
            return None
        if self._config.plan:
            say(f"{point.plan}: {point.job.name} ({point.reason})")
            return None
        if not save_job(point):
            return InUse(f"{point.job.folder} is held by another process")
        return point.job.file.absolute()

    @property
    def _where(self) -> dict[str, bool]:
        return getattr(self, "where", {})

    def _compose(self, overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
        return composed_point(self._context.config_loader, self._config, overrides)

    def _watch(self, path: Path, overrides: Sequence[str], number: int) -> "Watch":
        from hydra_plugins.byzshield_sweeper._watching import Watching

        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        return Watching(self._context.callbacks, config, self._task, path.parent)


def tell_end(watch: "Watch", folder: Path, error: Exception | None) -> None:
    """Tell of a run that has ended elsewhere."""

    def run() -> dict[str, Any]:
        if error is not None:
            raise error
        return _summary(folder)

    with suppress(Exception):
        watch(run)


def _summary(folder: Path) -> dict[str, Any]:
    from byzshield_exp.results.recorder import read_summary

    return read_summary(folder) or {}


def _returned(
    overrides: Sequence[str], found: Path | Exception | None, error: Exception | None
) -> JobReturn:
    said = JobReturn(overrides=[*overrides], status=JobStatus.COMPLETED)
    if isinstance(found, Exception) or error is not None:
        said.return_value, said.status = error or found, JobStatus.FAILED
    elif found is not None:
        from byzshield_exp.results.outcome import final_accuracy

        said.return_value = final_accuracy(_summary(found.parent))[1]
    return said
