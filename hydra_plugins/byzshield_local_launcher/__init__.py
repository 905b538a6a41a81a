"""``hydra/launcher=local``: run a sweep on this machine, each run in its own processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore

from hydra_plugins.byzshield_sweeper._launcher import JobLauncher

if TYPE_CHECKING:
    from byzshield_exp.launch.job import Watch


@dataclass
class LocalLauncherConf:
    """The keys of ``hydra.launcher``.

    Attributes:
        runs: how many run side by side; they share the cores.
        runs_per_gpu: how many share a GPU; replaces ``runs``.
    """

    _target_: str = "hydra_plugins.byzshield_local_launcher.LocalLauncher"
    runs: int = 1
    runs_per_gpu: int | None = None


ConfigStore.instance().store(
    group="hydra/launcher", name="local", node=LocalLauncherConf, provider="byzshield_exp"
)


class LocalLauncher(JobLauncher):
    """Runs a number of jobs at a time; the next starts when one has ended."""

    def __init__(self, runs: int, runs_per_gpu: int | None) -> None:
        self._runs, self._runs_per_gpu = runs, runs_per_gpu

    @property
    def where(self) -> dict[str, bool]:
        """What :class:`~byzshield_exp.launch.job.LauncherTraits` is made of."""
        from byzshield_exp.launch.pool import draws_bars

        return {"draws_bars": draws_bars()}

    def perform(
        self, paths: Sequence[Path], watches: Mapping[Path, "Watch"]
    ) -> Sequence[Exception | None]:
        """Run jobs on this machine."""
        from byzshield_exp.launch.pool import perform_all

        return perform_all(paths, self._runs, self._runs_per_gpu, watches)
