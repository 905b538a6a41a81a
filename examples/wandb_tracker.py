"""Send each run to Weights & Biases when it ends: a callback of Hydra's."""

from pathlib import Path
from typing import Any

import wandb
import yaml
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from byzshield_exp.results.recorder import flatten, read_metrics, read_summary


class WandbTracker(Callback):
    """Makes a run of W&B with the settings, the curves and the final numbers of each run."""

    def __init__(self, project: str, place: str = ".") -> None:
        """Say where runs go.

        Args:
            project: of W&B.
            place: folder in which W&B makes its folder ``wandb``.
        """
        self._project, self._place = project, place

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Send a run, also one that failed; a run that could not begin has no folder."""
        folder = Path(str(job_return.cfg and job_return.cfg.get("folder")))
        if not (folder / "config.yaml").is_file():
            return
        failed = job_return.status is not JobStatus.COMPLETED
        run = wandb.init(
            project=self._project,
            dir=self._place,
            name=folder.name,
            config=flatten(yaml.safe_load((folder / "config.yaml").read_text())),
            reinit="create_new",
        )
        for record in read_metrics(folder):
            run.log(flatten(record), step=record["step"])
        run.summary.update(read_summary(folder) or {})
        if failed:
            run.summary["error"] = str(job_return._return_value)
        run.finish(exit_code=int(failed))
