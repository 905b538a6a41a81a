"""The whole way by SSH: moto for Amazon, network namespaces with sshd for the instances."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from rented_hosts import network, why_not
from running import summary_of

import byzshield_exp
from byzshield_exp.launch.ec2 import commands, fleet, reach
from byzshield_exp.launch.ec2.cloud import connect
from byzshield_exp.launch.ec2.options import options_of
from byzshield_exp.launch.ec2.runs import jobs_of
from byzshield_exp.launch.ec2.state import store_of
from byzshield_exp.launch.job import describe

pytest.importorskip("asyncssh", reason="asyncssh is not installed: the extra ssh")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@pytest.fixture
def machines(tmp_path):
    folder = tmp_path / "machines"
    folder.mkdir()
    with network(folder) as made:
        yield made


@pytest.fixture
def instances(aws, machines, tmp_path, monkeypatch):
    """What EC2 says of an instance is true of a namespace: its address and its host key.

    The namespaces have done already what user-data does.
    """
    looked_up = fleet.describe

    def at_namespaces(cloud, names):
        found = looked_up(cloud, names)
        for one in found.values():
            node = 0 if one["InstanceType"] == "c7i.2xlarge" else one["AmiLaunchIndex"] + 1
            address = machines.hosts[node].address
            one["PrivateIpAddress"] = one["PublicIpAddress"] = address
        return found

    def console(InstanceId, Latest):
        assert Latest
        address = at_namespaces(cloud, [InstanceId])[InstanceId]["PublicIpAddress"]
        keys = "\n".join(machines.known_hosts[address])
        marks = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"
        return {"Output": f"[   12.3] starts\n{marks[0]}\n{keys}\n{marks[1]}\n"}

    cloud = connect("us-east-1")
    cloud.ec2.get_console_output = console
    monkeypatch.setattr(commands, "connect", lambda region: cloud)
    monkeypatch.setattr(fleet, "describe", at_namespaces)
    monkeypatch.setattr(reach, "_OWN_DISK", str(tmp_path / "disk"))
    monkeypatch.setattr(reach, "_BOOTSTRAP_FOLDER", str(tmp_path / "environment"))
    python = tmp_path / "environment/venv/bin/python"
    python.parent.mkdir(parents=True)
    package = Path(byzshield_exp.__file__).parents[1]
    python.write_text(f'#!/bin/sh\nPYTHONPATH={package} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    wheel = tmp_path / "byzshield_exp-0-py3-none-any.whl"
    wheel.write_bytes(b"stands for the package")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "environment/state").write_text(f"ready {sha256}\n")
    return options_of(
        {
            "transport": "ssh", "ssh_from": "203.0.113.7/32", "ssh_key": str(machines.user_key),
            "ssh_user": "root", "wheel": str(wheel), "server_type": "c7i.2xlarge", "processes": 1,
            "usd_per_hour": 0.5, "dry_run": False, "output_dir": str(tmp_path / "outputs"),
        }
    )  # fmt: skip


def test_runs_on_three_rented_machines(aws, instances, plain_config, tmp_path, capsys):
    cluster = ("cluster=processes", "cluster.num_processes=3")
    paths = []
    for seed in (0, 1):
        config = plain_config(*cluster, f"seed={seed}", f"output_dir={tmp_path}/outputs")
        paths.append(describe(config, f"seed{seed}")[0].save())
    done = commands.sweep(instances, jobs_of(paths))
    assert [job.phase for job in done] == ["done", "done"]
    assert not aws.living()
    for seed in (0, 1):
        folder = tmp_path / f"outputs/seed{seed}"
        assert json.loads((folder / "status.json").read_text())["state"] == "done"
        assert summary_of(folder)["steps"] == 4
        assert list((folder / "checkpoints").iterdir())
    (known,) = (path.read_text() for path in tmp_path.glob("outputs/ec2/byzshield/known_hosts-*"))
    assert known.count(" ssh-ed25519 ") == 3
    key = (tmp_path / "machines/user_key").read_text()
    state = store_of(str(tmp_path / "outputs"), "byzshield").path.read_text()
    assert key.splitlines()[1] not in state + "".join(capsys.readouterr())
    (wheel,) = (tmp_path / "disk").glob("*/*.whl")
    assert wheel.read_bytes() == b"stands for the package"
