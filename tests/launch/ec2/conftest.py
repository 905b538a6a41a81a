"""Fixtures: everything quick and on this machine; jobs; three machines that are reached by SSH."""

import json
import stat
import sys
from pathlib import Path

import pytest
from ec2_sweep import PROGRAM
from rented_hosts import network

from byzshield_exp.launch.ec2 import commands, fleet, reach, resources
from byzshield_exp.launch.ec2.cloud import connect


@pytest.fixture
def ready(aws, tmp_path, monkeypatch):
    """Everything quick, and the program that stands for Python on the hosts."""
    shared = connect("us-east-1")
    monkeypatch.setattr(commands, "connect", lambda region: shared)
    monkeypatch.setattr(resources, "_SETTLE_S", 0.0)
    monkeypatch.setattr(fleet, "WATCH_S", 0.2)
    program = tmp_path / "python"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(reach, "LOCAL_PYTHON", str(program))
    return aws


@pytest.fixture
def jobs(tmp_path):
    """``jobs(*what they do) -> paths`` of job files."""

    def make(*does: str, processes: int = 5, dataset: str = "digits") -> list[Path]:
        paths = []
        for number, one in enumerate(does):
            config = {
                "output_dir": str(tmp_path / "outputs"),
                "cluster": {"num_processes": processes},
                "dataset": {"root": "here"},
                "choices": {"dataset": dataset},
                "does": one,
            }
            path = tmp_path / "outputs" / f"run{number}" / "job.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"name": f"run{number}", "config": config}))
            paths.append(path)
        return paths

    return make


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    with network(tmp_path_factory.mktemp("machines")) as made:
        yield made


@pytest.fixture
def ssh(machines):
    from byzshield_exp.launch.ec2.ssh import SshTransport

    transport = SshTransport(machines.known_hosts, "root", machines.user_key)
    yield transport
    transport.close()
