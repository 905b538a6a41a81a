"""The real program: Hydra, the launcher, torchrun on three hosts, and the table of the sweep."""

import csv
import json
import sys
from dataclasses import replace

import pytest
from ec2_sweep import options
from running import SMALL, run_program

from byzshield_exp.launch.ec2 import commands, reach, runs
from byzshield_exp.launch.ec2.runs import jobs_of


def sweep_arguments(tmp_path) -> tuple[str, ...]:
    return (
        "-m", *SMALL, "seed=0,1", "cluster=processes", "cluster.num_processes=5",
        "hydra/launcher=byzshield_ec2", "hydra.launcher.transport=local",
        "hydra.launcher.usd_per_hour=0.5", f"output_dir={tmp_path}",
    )  # fmt: skip


@pytest.mark.thorough
def test_a_sweep_rents_nothing_before_it_is_told_to(aws, tmp_path):
    before = aws.inventory()
    ended = run_program(*sweep_arguments(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "nothing was created; dry_run=false creates it" in ended.stdout
    assert aws.inventory() == before


@pytest.mark.slow
def test_a_sweep_with_real_torchrun(aws, tmp_path):
    """The whole way: Hydra, the launcher, torchrun on three hosts, and the table of the sweep."""
    arguments = sweep_arguments(tmp_path)
    ended = run_program(*arguments, "hydra.launcher.dry_run=false", timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert "botocore" not in ended.stdout + ended.stderr
    assert "Found credentials" not in ended.stdout + ended.stderr
    table = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row["state"] for row in table] == ["done", "done"]
    for row in table:
        assert (tmp_path / row["name"] / "summary.json").exists()
        assert list((tmp_path / row["name"] / "checkpoints").iterdir())
    assert not aws.living()
    count = len(aws.calls)
    again = run_program(*arguments, "hydra.launcher.dry_run=false")
    assert again.returncode == 0, again.stderr
    assert len(aws.calls) == count


@pytest.mark.thorough
def test_a_real_run_goes_on_from_what_came_back(ready, tmp_path, monkeypatch):
    """Begun here, and done by hosts that share no folder."""
    outputs = tmp_path / "outputs"
    begun = run_program(
        "-m", *SMALL, "seed=0,1", "cluster=processes", "cluster.num_processes=5",
        f"output_dir={outputs}",
    )  # fmt: skip
    assert begun.returncode == 0, begun.stderr
    path = min(outputs.glob("*/job.json"))
    content = json.loads(path.read_text())
    content["config"]["steps"] = 8
    path.write_text(json.dumps(content))
    place_of = reach.place_of
    monkeypatch.setattr(runs, "place_of", lambda it: replace(place_of(it), is_shared=False))
    monkeypatch.setattr(reach, "LOCAL_PYTHON", sys.executable)
    (job,) = commands.sweep(options(tmp_path), jobs_of([path]))
    assert job.phase == "done", job.error
    assert json.loads((path.parent / "summary.json").read_text())["steps"] == 8
    assert "resumes after step 4" in (path.parent / "log.txt").read_text()
