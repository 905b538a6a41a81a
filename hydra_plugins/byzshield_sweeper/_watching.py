"""Tell Hydra's callbacks of a run that a launcher of ours does."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, setup_globals
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

_one_at_a_time = Lock()  # runs side by side are threads here, and HydraConfig is global


@dataclass(frozen=True)
class Watching:
    """Calls ``on_job_start`` before a run and ``on_job_end`` after it, as Hydra's ``run_job`` does.

    It is pickled where the run is a job of Slurm.

    Attributes:
        callbacks: Hydra's.
        config: of the point, with ``hydra``.
        task: the function that Hydra would call.
        folder: of the run; ``job_return.cfg.folder``.
    """

    callbacks: Any
    config: DictConfig
    task: TaskFunction
    folder: Path

    def __call__(self, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a run and return its summary; what it raises is raised."""
        from byzshield_exp.results.outcome import final_accuracy

        said = self._begin()
        try:
            summary = run()
            said.return_value, said.status = final_accuracy(summary)[1], JobStatus.COMPLETED
            return summary
        except BaseException as error:
            said.return_value, said.status = error, JobStatus.FAILED
            raise
        finally:
            self._tell("on_job_end", job_return=said)

    def _begin(self) -> JobReturn:
        setup_globals()
        hydra = self.config.hydra
        with read_write(hydra.runtime), open_dict(hydra.runtime):
            place = os.path.join(str(hydra.sweep.dir), str(hydra.sweep.subdir))
            hydra.runtime.output_dir = os.path.abspath(place)
        own = deepcopy(self.config)
        with read_write(own), open_dict(own):
            del own["hydra"]
            own["folder"] = str(self.folder)
        said = JobReturn(
            overrides=OmegaConf.to_container(hydra.overrides.task),  # type: ignore[arg-type]
            cfg=own,
            hydra_cfg=OmegaConf.masked_copy(self.config, "hydra"),
            working_dir=os.getcwd(),
            task_name=JobRuntime.instance().get("name"),
        )
        self._tell("on_job_start", task_function=self.task)
        return said

    def _tell(self, what: str, **more: Any) -> None:
        with _one_at_a_time:
            before = HydraConfig.instance().cfg
            try:
                HydraConfig.instance().set_config(self.config)
                getattr(self.callbacks, what)(config=self.config, **more)
            finally:
                HydraConfig.instance().cfg = before
