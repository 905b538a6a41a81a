"""Make the points of a sweep, and compose each; Hydra searches no module with a leading _."""

from collections.abc import Iterable
from itertools import product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from byzshield_exp.errors import ConfigError

_JOB = "+job="  # a job file, the last override of a point that our sweeper has described


def grid(overrides: Iterable[Override]) -> list[list[str]]:
    """Return every combination of the values that overrides give to their keys.

    The last override of a key counts; the last key varies fastest, as in Hydra's basic sweeper.

    Raises:
        ConfigError: for an interval, which has no list of values.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(
                f"{override.input_line}: an interval needs a sweeper that chooses its points, "
                "such as hydra/sweeper=optuna"
            )
    return [list(point) for point in product(*values.values())]


def composed_point(
    loader: ConfigLoader, master: DictConfig, overrides: Iterable[str]
) -> tuple[dict[str, Any], str]:
    """Compose a point: its plain configuration, and the name of its folder.

    Args:
        loader: Hydra's.
        master: the configuration of the sweep.
        overrides: of the point.

    Raises:
        ConfigError: if it cannot be composed, or is out of bounds.
    """
    from byzshield_exp.commands.config import plain
    from byzshield_exp.commands.hydra_errors import as_config_errors
    from byzshield_exp.commands.run_name import run_name

    before = HydraConfig.instance().cfg
    try:
        with as_config_errors([*overrides]):
            cfg = loader.load_sweep_config(master, list(overrides))
            HydraConfig.instance().set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            return plain(cfg), run_name(cfg)
    finally:
        HydraConfig.instance().cfg = before


def job_override(path: str) -> str:
    """Spell the override that gives a point its job file."""
    quoted = path.replace("'", "\\'")
    return f"{_JOB}'{quoted}'"


def job_of(overrides: Iterable[str]) -> str | None:
    """Return the job file in a point's overrides; None if another sweeper made them."""
    given = [one.removeprefix(_JOB) for one in overrides if one.startswith(_JOB)]
    return given[-1][1:-1].replace("\\'", "'") if given else None
