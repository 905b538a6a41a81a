"""Send each run to MLflow when it ends: a callback of Hydra's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import yaml
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from byzshield_exp.results.recorder import flatten, read_metrics, read_summary


class MlflowTracker(Callback):
    """Makes a run of MLflow with the settings, the curves and the final numbers of each run."""

    def __init__(self, experiment: str) -> None:
        """Name the experiment of MLflow; ``MLFLOW_TRACKING_URI`` says where it is kept."""
        self._experiment = experiment

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Send a run, also one that failed; a run that could not begin has no folder."""
        folder = Path(str(job_return.cfg and job_return.cfg.get("folder")))
        if not (folder / "config.yaml").is_file():
            return
        mlflow.set_experiment(self._experiment)
        mlflow.start_run(run_name=folder.name)
        failed = job_return.status is not JobStatus.COMPLETED
        try:
            mlflow.log_params(flatten(yaml.safe_load((folder / "config.yaml").read_text())))
            for record in read_metrics(folder):
                mlflow.log_metrics(_numbers(record), step=record["step"])
            mlflow.log_metrics(_numbers(read_summary(folder) or {}))
            if failed:
                mlflow.set_tag("error", str(job_return._return_value))
        finally:
            mlflow.end_run("FAILED" if failed else "FINISHED")


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in flatten(dict(record)).items()
        if isinstance(value, int | float)
    }
