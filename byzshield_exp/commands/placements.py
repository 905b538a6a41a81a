"""Make the placements that a command line names, with its sizes and keys."""

from collections.abc import Mapping
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from byzshield_exp.assignments import Assignment
from byzshield_exp.binding import construct
from byzshield_exp.commands import config as configuration
from byzshield_exp.commands.choices import conf_dir
from byzshield_exp.commands.hydra_errors import as_config_errors


def sizes(overrides: Mapping[str, str]) -> tuple[int, int]:
    """Return ``K`` and ``r`` of a command line.

    Raises:
        ConfigError: for an override that Hydra refuses.
    """
    cfg = _composed(overrides)
    return cfg["K"], cfg["r"]


def placements(overrides: Mapping[str, str]) -> dict[str, Assignment]:
    """Make the placements that ``approach=a,b`` names; without it, mols.

    Raises:
        ConfigError: for an override that Hydra or the placement refuses.
    """
    names = overrides.get("approach", "mols").split(",")
    return {
        name: construct("approach", _composed({**overrides, "approach": name})["approach"])
        for name in names
    }


def _composed(overrides: Mapping[str, str]) -> dict[str, Any]:
    configuration.register()
    typed = [f"{key}={value}" for key, value in overrides.items()]
    with as_config_errors(typed), initialize_config_dir(conf_dir(), **configuration.VERSION_BASE):
        cfg = compose("config", typed)
        approach = OmegaConf.to_container(cfg.approach, resolve=True, throw_on_missing=True)
        return {"K": cfg.K, "r": cfg.r, "approach": approach}
