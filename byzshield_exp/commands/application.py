"""Define the function that Hydra calls with a configuration.

torch takes 2 s to import. Functions import what uses it, so that ``--help`` and typos do not wait.
"""

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from byzshield_exp.commands import config as configuration
from byzshield_exp.commands.choices import conf_dir
from byzshield_exp.commands.exits import STOPPED
from byzshield_exp.errors import ConfigError, Stopped
from byzshield_exp.interrupts import is_by_ctrl_c

configuration.register()
failures: list[Exception] = []  # kept from Hydra, which would print lines of its own
swept: list[tuple[str, Path]] = []  # of the points of sweeps: curve and folder; Hydra returns none


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
def compose_and_run(cfg: DictConfig) -> float | None:
    """Do one run; in a sweep, do the job whose path a launcher of Hydra's passes.

    Returns:
        The final accuracy of a job, in [0, 1].
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from byzshield_exp.commands.one_run import do_point

        try:
            return do_point(Path(cfg.job))
        except Stopped as error:  # Hydra would start the next one
            raise KeyboardInterrupt if is_by_ctrl_c() else SystemExit(STOPPED) from error
    try:
        _run(cfg)
    except Exception as error:
        if isinstance(error, ConfigError) and cfg.on_invalid == "skip":
            print(f"skipped: {error}", flush=True)
        else:
            failures.append(error)
    return None


def _run(cfg: DictConfig) -> None:
    config = configuration.plain(cfg)
    _check_torchrun(config)
    from byzshield_exp.commands.one_run import do_run
    from byzshield_exp.commands.run_name import run_name

    do_run(config, run_name(cfg))


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
