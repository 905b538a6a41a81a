"""Hydra's own sweeper with curves: lists of overrides that are not a grid."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from byzshield_exp.errors import ConfigError


@dataclass
class SweeperConf:
    """The keys of ``hydra.sweeper``.

    Attributes:
        curves: by name, overrides with spaces between them. Each is swept with what the command
            line adds.
        only: names of the curves to do; none: all.
        max_batch_size: jobs given to the launcher at a time; None: all.
        params: overrides that each point has, as in Hydra's basic sweeper.
    """

    _target_: str = "hydra_plugins.byzshield_sweeper.CurveSweeper"
    curves: dict[str, str] = field(default_factory=dict)
    only: list[str] = field(default_factory=list)
    max_batch_size: int | None = None
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="byzshield", node=SweeperConf, provider="byzshield_exp"
)


class CurveSweeper(BasicSweeper):
    """The grid of the command line, once for each curve."""

    def __init__(
        self,
        curves: dict[str, str],
        only: Sequence[str] = (),
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self._curves, self._only = curves, only

    def split_arguments(  # type: ignore[override]  # Hydra's is static and called on self
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The points, in lists for the launcher.

        Raises:
            ConfigError: if ``only`` names a curve that there is not, or experiments are swept.
        """
        assert self.hydra_context is not None
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
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        points: list[Any] = []
        for name in self._only or curves or [""]:
            curve = parser.parse_overrides(shlex.split(curves.get(name, "")))
            (grid,) = BasicSweeper.split_arguments(curve + overrides, None)
            points += [point for point in grid if point not in points]
        return list(self.split_overrides_to_chunks(points, max_batch_size))
