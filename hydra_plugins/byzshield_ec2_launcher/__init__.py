"""``hydra/launcher=byzshield_ec2``: run a sweep on instances of Amazon EC2.

Every program that uses Hydra imports this file at its start, so it imports nothing heavy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.config_store import ConfigStore

from hydra_plugins.byzshield_sweeper._launcher import JobLauncher, tell_end

if TYPE_CHECKING:
    from byzshield_exp.launch.job import Watch


@dataclass
class EC2LauncherConf:
    """The keys of ``hydra.launcher``: those of ``byzshield_exp.launch.ec2.options.Options``."""

    _target_: str = "hydra_plugins.byzshield_ec2_launcher.EC2Launcher"
    name: str = "byzshield"
    dry_run: bool = True
    region: str | None = None
    zone: str | None = None
    subnet: str | None = None
    server_type: str = "c7i.xlarge"
    worker_type: str = "c7i.xlarge"
    workers: int = 2
    processes: int = 2
    market: str = "spot"
    reuse: bool = True
    gangs: int = 1
    ami: str = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    volume_gb: int = 40
    instance_profile: str | None = None
    transport: str = "ssm"
    ssh_from: str | None = None
    ssh_key: str | None = None
    ssh_public_key: str | None = None
    ssh_user: str = "ec2-user"
    public_address: bool = True
    https_to: str = "0.0.0.0/0"
    efs: str | None = None
    bucket: str | None = None
    wheel: str | None = None
    wheel_sha256: str | None = None
    pip_arguments: str = "--extra-index-url https://download.pytorch.org/whl/cpu"
    usd_per_hour: float | None = None
    max_usd: float = 5.0
    max_hours: float = 2.0
    max_instances: int = 8
    max_attempts: int = 3
    retry_s: float = 30.0
    boot_minutes: float = 15.0
    owner: str | None = None
    output_dir: str = "${output_dir}"


ConfigStore.instance().store(
    group="hydra/launcher", name="byzshield_ec2", node=EC2LauncherConf, provider="byzshield_exp"
)


class EC2Launcher(JobLauncher):
    """Runs the jobs of a sweep on gangs of instances, then terminates the instances."""

    where: ClassVar = {"runs_locally": False, "fetches_data": True, "cleans_up": True}

    def __init__(self, **options: Any) -> None:
        self._options = options

    def perform(
        self, paths: Sequence[Path], watches: Mapping[Path, "Watch"]
    ) -> Sequence[Exception | None]:
        """Run jobs on a fleet; a dry run only shows the plan. Callbacks hear of all at the end."""
        from byzshield_exp.errors import Queued, RunError
        from byzshield_exp.launch.ec2.commands import sweep
        from byzshield_exp.launch.ec2.options import options_of
        from byzshield_exp.launch.ec2.runs import jobs_of

        options = options_of(self._options)
        jobs = sweep(options, jobs_of(paths))
        if options.dry_run:
            return [Queued("hydra.launcher.dry_run=false does it")] * len(paths)
        errors = [
            None if job.phase == "done" else RunError(job.error or "not done") for job in jobs
        ]
        for path, error in zip(paths, errors, strict=True):
            if path in watches:
                tell_end(watches[path], path.parent, error)
        return errors
