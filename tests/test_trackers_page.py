"""``docs/trackers_and_sweepers.md``: every command runs, with the real packages."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml
from running import SMALL, modules_in, run_program

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "trackers_and_sweepers.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.splitlines()
]
NEEDS = {
    "sweeper=optuna": "hydra_plugins.hydra_optuna_sweeper",
    "launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "launcher=submitit": "hydra_plugins.hydra_submitit_launcher",
    "wandb": "wandb",
    "mlflow": "mlflow",
}


def runs_of_wandb(folder):
    return [path.read_bytes() for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def runs_of_mlflow(folder):
    """The name, state, number of steps and ``q`` of each run."""
    for meta in folder.glob("mlruns/*/*/meta.yaml"):
        run = yaml.safe_load(meta.read_text())
        steps = (meta.parent / "metrics" / "loss").read_text().splitlines()
        yield run["run_name"], run["status"], len(steps), (meta.parent / "params" / "q").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda line: line.rpartition("/")[2])
def test_commands_run(command, tmp_path):
    for word, package in NEEDS.items():
        if word in command and importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    start, *arguments = shlex.split(command)[1:]
    assert start == "run"
    (place,) = (one for one in arguments if one.startswith("output_dir="))
    rest = [one for one in arguments if one != place]
    options = [rest.pop(0)] if rest[0] == "-m" else []
    done = run_program(
        *options, *rest, *SMALL, f"output_dir={tmp_path}/out", timeout=280, cwd=tmp_path,
        **modules_in(ROOT / "examples"), WANDB_MODE="offline", WANDB_SILENT="true",
        MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_TRACKING_URI=f"file:{tmp_path}/mlruns",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = [path.parent.name for path in tmp_path.glob("out/*/summary.json")]
    assert len(names) >= 2
    if "wandb" in command:
        sent = runs_of_wandb(tmp_path)
        for name in names:
            assert any(name.encode() in one and b"final_test_accuracy" in one for one in sent)
        assert len(sent) == len(names)
    if "mlflow" in command:
        found = list(runs_of_mlflow(tmp_path))
        assert sorted(run[0] for run in found) == sorted(names)
        for name, status, steps, q in found:
            assert (status, steps) == (3, 4)  # MLflow's number of FINISHED
            assert f"q={q}" in name


def test_the_callbacks_are_short():
    for path in (ROOT / "examples").glob("*_tracker.py"):
        assert len(path.read_text().splitlines()) <= 60


def test_links_of_the_page_resolve():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
