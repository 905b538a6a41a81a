"""Runs of the real program, small enough for a test, and what they leave."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Small: a perceptron on made-up pictures.
SMALL = ("dataset=synthetic", "network=mlp", "network.hidden=[16]", "steps=4", "eval_every=4")


def run_program(
    *overrides: str,
    timeout: float = 120,
    module: str = "byzshield_exp",
    cwd: Path | None = None,
    **environment: str,
):
    """Run the program as a user would; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-m", module, *overrides],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def modules_in(folder: Path) -> dict[str, str]:
    """The environment of a program that finds modules in a folder, and the rest where we do."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def summary_of(folder: Path) -> dict[str, Any]:
    """The one summary below a folder."""
    (path,) = folder.glob("**/summary.json")
    return json.loads(path.read_text())


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The records of the one run below a folder."""
    (path,) = folder.glob("**/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def text_of(config: dict[str, Any], folder: Path) -> str:
    """What the ranks of a run are told."""
    from byzshield_exp.clusters.backend import resolved
    from byzshield_exp.launch.ranks import RankJob
    from byzshield_exp.training.experiment import build

    return RankJob(resolved(config), str(folder), asdict(build(config).worst)).text
