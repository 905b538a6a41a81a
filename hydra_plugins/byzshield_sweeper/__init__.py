"""Sweep the command line's grid, once for each curve: check all points, then launch them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from byzshield_exp.errors import ConfigError
from hydra_plugins.byzshield_sweeper._points import composed_point, grid, job_override


@dataclass
class SweeperConf:
    """The keys of ``hydra.sweeper``.

    Attributes:
        curves: overrides of each curve by its name, separated by spaces. The command line's
            overrides are added to each.
        only: names of the curves to run; empty: all.
        params: overrides of every point, as in Hydra's basic sweeper.
    """

    _target_: str = "hydra_plugins.byzshield_sweeper.CurveSweeper"
    curves: dict[str, str] = field(default_factory=dict)
    only: list[str] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="byzshield", node=SweeperConf, provider="byzshield_exp"
)


class CurveSweeper(Sweeper):
    """Makes the points of a sweep; ``byzshield_exp.launch.sweep`` checks and runs them."""

    def __init__(
        self,
        curves: dict[str, str],
        only: Sequence[str] = (),
        params: dict[str, str] | None = None,
    ) -> None:
        self._curves, self._only, self._params = curves, only, params or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra passes, for :meth:`sweep`."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep of the command line's overrides.

        Raises:
            ConfigError: before anything runs, if something cannot run.
            RunError: at the end, if runs have failed.
        """
        from byzshield_exp.commands.application import swept
        from byzshield_exp.launch.job import Job, LauncherTraits
        from byzshield_exp.launch.sweep import sweep

        parser = OverridesParser.create(config_loader=self._context.config_loader)
        params = [f"{key}={value}" for key, value in self._params.items()]
        points = self._points(parser, parser.parse_overrides(params + arguments))
        config, overrides_of = self._config, dict[Path, Sequence[str]]()
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task, config=config
        )

        def compose(overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
            return composed_point(self._context.config_loader, config, overrides)

        def found(job: Job, overrides: Sequence[str]) -> None:
            swept.append((job.config["curve"] or "", job.folder))
            overrides_of[job.file] = overrides

        def launch(paths: Sequence[Path]) -> list[Exception | None]:
            jobs = [[*overrides_of[path], job_override(str(path.absolute()))] for path in paths]
            ends = launcher.launch(jobs, initial_job_idx=0)
            return [
                None if end.status == JobStatus.COMPLETED else end._return_value for end in ends
            ]

        sweep(
            points, compose, launch, config.output_dir, config.on_invalid, config.plan,
            LauncherTraits(**getattr(launcher, "where", {})), found,
        )  # fmt: skip

    def _points(self, parser: OverridesParser, overrides: list[Override]) -> list[list[str]]:
        for override in overrides:
            if override.key_or_group == "experiment" and override.is_sweep_override():
                raise ConfigError(
                    f"{override.input_line}: one experiment at a time, as each has its own curves"
                )
        curves = self._curves
        for name in self._only:
            if name not in curves:
                there = f"there are {', '.join(curves)}" if curves else "this sweep has no curves"
                raise ConfigError(f"hydra.sweeper.only={name}: no such curve, {there}")
        points: list[Any] = []
        for name in self._only or curves or [""]:
            given = [*shlex.split(curves[name]), f"curve={name}"] if name else []
            curve = parser.parse_overrides(given)
            points += [point for point in grid(curve + overrides) if point not in points]
        return points
