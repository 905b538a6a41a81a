"""Fixtures: the command line in this process, a configuration, Amazon as far as moto knows it."""

import gc
import os
import re
import signal
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from running import SMALL, summary_of

# Before torch is imported: idle threads of OpenMP spin, which slows the test beside this one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so their children.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Have the collector of garbage pass over what was imported: most of the objects there are."""
    gc.collect()
    gc.freeze()


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
        against = " and ".join(sorted({where for _, where, _ in done}))
        terminalreporter.write_line(
            f"goldens: {sum(count for count, _, _ in done)} compared with {against or 'nothing'}, "
            f"{sum(new for _, _, new in done)} not in it, {len(skipped)} tests skipped"
        )


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run the command line in this process: ``cli(*overrides) -> (exit code, out, err)``."""
    from byzshield_exp.commands import run

    monkeypatch.setattr(sys, "argv", ["byzshield_exp"])

    def call(*overrides: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            if not any(re.search(r"experiment|hydra\.|--", override) for override in overrides):
                # Hydra composes everything once more to read hydra.mode, which nothing sets here:
                # a third of the time of such a test.
                patch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda *_, **__: None)
            try:
                code = run.main(list(overrides))
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
    from byzshield_exp.commands.choices import conf_dir

    configuration.register()

    def make(*overrides: str, small: bool = True) -> dict[str, Any]:
        with initialize_config_dir(conf_dir(), **configuration.VERSION_BASE):
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
    from botocore.loaders import JSONFileLoader
    from ec2_cloud import running_cloud

    load = JSONFileLoader.load_file
    read = lru_cache(lambda path: load(JSONFileLoader(), path))
    with running_cloud() as cloud, pytest.MonkeyPatch.context() as patch:
        # Each client reads EC2's description anew, a quarter of a second of JSON.
        patch.setattr(JSONFileLoader, "load_file", lambda self, path: read(path))
        yield cloud


@pytest.fixture
def aws(aws_server, monkeypatch):
    """Amazon as far as moto knows it, empty, for this process and its children."""
    aws_server.reset()
    for name, value in aws_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return aws_server
