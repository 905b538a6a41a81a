"""Define the function that Hydra calls with a configuration.

torch takes 2 s to import. Functions import what uses it, so that ``--help`` and typos do not wait.
"""

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from byzshield_exp.commands import config as configuration
from byzshield_exp.commands.choices import conf_dir
from byzshield_exp.commands.exits import STOPPED
from byzshield_exp.errors import ConfigError, Stopped
from byzshield_exp.interrupts import is_by_ctrl_c
from byzshield_exp.notices import say

configuration.register()
swept: list[tuple[str, Path]] = []  # of the points of sweeps: curve and folder; Hydra returns none


@hydra.main(config_path=conf_dir(), config_name="config", **configuration.VERSION_BASE)
def compose_and_run(cfg: DictConfig) -> float | None:
    """Do a run: that of the command line, a point of a sweep, or the job of our own sweeper.

    ``cfg.folder`` becomes the run's folder, for callbacks: ``job_return.cfg`` is this ``cfg``.

    Returns:
        The final accuracy in [0, 1], of the validation pictures where some are held out, else of
        the test pictures; None if nothing was to run.
    """
    try:
        return _run(cfg)
    except Stopped as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise
        # Hydra would start the next one
        raise KeyboardInterrupt if is_by_ctrl_c() else SystemExit(STOPPED) from error
    except ConfigError as error:
        if cfg.on_invalid != "skip" or "job" in cfg:
            raise
        say(f"skipped: {error}")
        return None


def _run(cfg: DictConfig) -> float | None:
    def found(folder: Path) -> None:
        with open_dict(cfg):
            cfg.folder = str(folder)

    if "job" in cfg:
        from byzshield_exp.commands.one_run import do_point

        return do_point(Path(cfg.job), found)
    config = configuration.plain(cfg)
    _check_torchrun(config)
    from byzshield_exp.commands.one_run import do_run
    from byzshield_exp.commands.run_name import run_name

    return do_run(config, run_name(cfg), found)


def _check_torchrun(config: dict[str, Any]) -> None:
    world_size = configuration.torchrun_size()
    if world_size is None:
        return
    if config["choices"]["cluster"] != "processes":
        raise ConfigError(
            f"cluster={config['choices']['cluster']} under torchrun: leave it out, "
            f"its {world_size} processes are the cluster"
        )
    if config["cluster"]["num_processes"] != world_size:
        raise ConfigError(
            f"cluster.num_processes={config['cluster']['num_processes']} under torchrun must be "
            f"its number of processes, {world_size}"
        )
