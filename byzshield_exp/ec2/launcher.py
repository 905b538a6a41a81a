"""The jobs of a sweep as Hydra's launcher gets and returns them."""

import json
from pathlib import Path

from byzshield_exp.ec2.state import Job
from byzshield_exp.errors import ConfigError


def jobs_of(overrides: list[list[str]]) -> list[Job]:
    """The jobs whose files are the values of the last overrides.

    Raises:
        ConfigError: if one cannot be read.
    """
    jobs = []
    for one in overrides:
        path = Path(one[-1].partition("=")[2]).resolve()
        try:
            jobs.append(Job(str(path), json.loads(path.read_text())["name"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"the job {path} cannot be read: {error}") from error
    return jobs


def accuracy_of(path: Path) -> float | None:
    """The final accuracy of the run of a job file; None where there is none."""
    content = json.loads(path.read_text())
    try:
        summary = json.loads(
            (Path(content["config"]["output_dir"]) / content["name"] / "summary.json").read_text()
        )
    except (OSError, ValueError):
        return None
    return next((float(value) for key, value in summary.items() if key.startswith("final_")), None)
