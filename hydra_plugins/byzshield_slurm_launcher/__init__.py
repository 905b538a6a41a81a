"""``hydra/launcher=byzshield_slurm``: run each point of a sweep as a job of Slurm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hydra_plugins.byzshield_sweeper._launcher import JobLauncher

if TYPE_CHECKING:
    from byzshield_exp.launch.job import Watch


@dataclass
class SlurmLauncherConf:
    """The keys of ``hydra.launcher``: see ``byzshield_exp.launch.slurm.Resources``."""

    _target_: str = "hydra_plugins.byzshield_slurm_launcher.SlurmLauncher"
    nodes: int = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    timeout_min: int = 60
    signal_delay_s: int = 120
    max_num_timeout: int = 100
    array_parallelism: int = 256
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    wait: bool = True


ConfigStore.instance().store(
    group="hydra/launcher", name="byzshield_slurm", node=SlurmLauncherConf, provider="byzshield_exp"
)


class SlurmLauncher(JobLauncher):
    """Submits jobs and waits for them, and for those that an earlier call submitted."""

    where: ClassVar = {"runs_locally": False, "reattaches": True}

    def __init__(self, **resources: Any) -> None:
        self._resources: Any = OmegaConf.to_container(OmegaConf.create(resources))

    def perform(
        self, paths: Sequence[Path], watches: Mapping[Path, "Watch"]
    ) -> Sequence[Exception | None]:
        """Run jobs on Slurm."""
        from byzshield_exp.launch.slurm import Resources, submit_all

        return submit_all(paths, Resources(**self._resources), watches)
