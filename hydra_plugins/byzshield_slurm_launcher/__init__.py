"""The launcher for Slurm: every run of a sweep is a job."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class SlurmLauncherConf:
    """The keys of ``hydra.launcher``; ``byzshield_exp.slurm.Resources`` says what they are."""

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


def register() -> None:
    """Take the name, also from the package that has an option of the same name."""
    ConfigStore.instance().store(
        group="hydra/launcher", name="submitit_slurm", node=SlurmLauncherConf
    )


register()


class SlurmLauncher(Launcher):
    """Submits jobs, and waits for those that it finds submitted."""

    where: ClassVar = {"is_here": False, "attaches": True}

    def __init__(self, **resources: Any) -> None:
        self._resources: Any = OmegaConf.to_container(OmegaConf.create(resources))

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """All that is needed is in the jobs."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do jobs, each given as ``job=PATH``."""
        from byzshield_exp.slurm import Resources, submit_all

        paths = [Path(overrides[-1].partition("=")[2]) for overrides in job_overrides]
        errors = submit_all(paths, Resources(**self._resources))
        return [
            JobReturn(
                _return_value=error,
                status=JobStatus.COMPLETED if error is None else JobStatus.FAILED,
            )
            for error in errors
        ]
