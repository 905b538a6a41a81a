"""Fixtures: runs of the real program, small enough for a test."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and so their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Small: a perceptron on made-up pictures.
SMALL = ("dataset=synthetic", "network=mlp", "network.hidden=[16]", "steps=4", "eval_every=4")


def pytest_terminal_summary(terminalreporter):
    """Say how many golden runs were compared."""
    done = [
        value
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for name, value in report.user_properties
        if name == "goldens" and report.when == "call"
    ]
    skipped = [r for r in terminalreporter.getreports("skipped") if "test_goldens" in r.nodeid]
    if done or skipped:
        against = " and ".join(sorted({where for _, where in done}))
        terminalreporter.write_line(
            f"goldens: {sum(count for count, _ in done)} compared with {against or 'nothing'}, "
            f"{len(skipped)} tests skipped"
        )


def run_program(
    *overrides: str, timeout: float = 120, module: str = "byzshield_exp", **environment: str
):
    """Run the program as a user would; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-m", module, *overrides],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


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
    from byzshield_exp.launch.ranks import RankJob
    from byzshield_exp.training.experiment import build

    return RankJob(config, str(folder), asdict(build(config).worst)).text


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run the command line in this process: ``cli(*overrides) -> (exit code, out, err)``."""
    from byzshield_exp.commands import run

    monkeypatch.setattr(sys, "argv", ["byzshield_exp"])

    def call(*overrides: str) -> tuple[int, str, str]:
        code = 0
        try:
            run.main(list(overrides))
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def run(cli, tmp_path):
    """Do a small run in this process and return its summary: ``run(*overrides)``."""

    def call(*overrides: str, small: bool = True, folder: Path | None = None) -> dict[str, Any]:
        target = folder or tmp_path / "outputs"
        code, _, err = cli(*(SMALL if small else ()), f"output_dir={target}", *overrides)
        assert code == 0, err
        return summary_of(target)

    return call


@pytest.fixture
def plain_config():
    """A resolved configuration, made as the program makes it: ``plain_config(*overrides)``."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from byzshield_exp.commands import config as configuration

    configuration.register()

    def make(*overrides: str, small: bool = True) -> dict[str, Any]:
        with initialize_config_dir(configuration.conf_dir(), version_base="1.3"):
            chosen = [*(SMALL if small else ()), *overrides]
            cfg = compose("config", chosen, return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            return configuration.plain(cfg)

    return make


@pytest.fixture(scope="session")
def aws_server():
    pytest.importorskip("moto.server", reason="needs moto[server]")
    from ec2_cloud import running_cloud

    with running_cloud() as cloud:
        yield cloud


@pytest.fixture
def aws(aws_server, monkeypatch):
    """Amazon as far as moto knows it, empty, for this process and its children."""
    aws_server.reset()
    for name, value in aws_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return aws_server
