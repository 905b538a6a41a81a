"""Where things are on the hosts, and what this machine notes of the way to them."""

import base64
import dataclasses
import socket
import threading
from types import SimpleNamespace

import ec2_cloud
import pytest
from test_ec2_plan import FACTS

from byzshield_exp.launch.ec2 import runs
from byzshield_exp.launch.ec2.fleet import Watched
from byzshield_exp.launch.ec2.hosts import Ended, Host
from byzshield_exp.launch.ec2.local import LocalTransport
from byzshield_exp.launch.ec2.options import Options
from byzshield_exp.launch.ec2.reach import known_hosts, place_of, transport_to
from byzshield_exp.launch.ec2.resources import Control
from byzshield_exp.launch.ec2.state import new_state, store_of

OPTIONS = Options(
    transport="ssh", ssh_from="203.0.113.7/32", ssh_public_key="key.pub", wheel="dist/a-1-x.whl"
)


def control_of(output_dir, name: str = "byzshield", ec2=None, **options) -> Control:
    chosen = dataclasses.replace(OPTIONS, output_dir=str(output_dir), name=name, **options)
    cloud = ec2_cloud.only(ec2=ec2)
    return Control(new_state(chosen, FACTS, 0.0), store_of(str(output_dir), name), cloud)


def test_results_lie_where_they_were_whatever_this_machine_is_called(tmp_path, monkeypatch):
    before = place_of(control_of(tmp_path / "my out's")).outputs
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert place_of(control_of(tmp_path / "my out's", "second")).outputs == before
    (tmp_path / "my out's").rename(tmp_path / "renamed")
    assert place_of(control_of(tmp_path / "renamed")).outputs == before
    assert before.startswith("/var/tmp/byzshield/outputs/my_out_s-")
    assert place_of(control_of(tmp_path / "my out's")).outputs != before


def test_two_drivers_at_once_agree_where_results_lie(tmp_path):
    together, found = threading.Barrier(8), []

    def look() -> None:
        together.wait()
        found.append(place_of(control_of(tmp_path)).outputs)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "ec2").iterdir()] == ["name_on_hosts"]


def test_only_spot_instances_ask_whether_they_are_taken_back(tmp_path):
    assert place_of(control_of(tmp_path)).metadata == "http://169.254.169.254/latest"
    assert place_of(control_of(tmp_path, market="on_demand")).metadata is None


def test_gangs_side_by_side_keep_their_host_keys_apart(tmp_path):
    pytest.importorskip("asyncssh", reason="asyncssh is not installed: the extra ssh")

    def console(InstanceId: str, Latest: bool) -> dict[str, str]:
        key = base64.b64encode(InstanceId.encode()).decode()
        mark = "SSH HOST KEY KEYS-----"
        return {"Output": f"-----BEGIN {mark}\nssh-ed25519 {key}\n-----END {mark}\n"}

    control = control_of(tmp_path, ec2=SimpleNamespace(get_console_output=console))
    gangs = [
        [Host(f"i-{gang}{node}", f"10.0.{gang}.{node}", f"10.0.{gang}.{node}", node)
         for node in range(2)]
        for gang in range(2)
    ]  # fmt: skip
    for hosts in gangs:
        transport_to(control, hosts).close()
    for hosts in gangs:
        lines = known_hosts(control, hosts[0]).read_text().splitlines()
        assert [line.split()[0] for line in lines] == [host.reach for host in hosts]


@pytest.mark.parametrize(
    ("dataset", "extra"),
    [
        ({"root": "data", "extra": True}, " dataset.extra=true"),
        ({"root": "data", "extra": False}, ""),
        ({"root": "data"}, ""),
    ],
)
def test_further_pictures_are_prepared_where_the_run_wants_them(
    tmp_path, monkeypatch, dataset, extra
):
    place, scripts = place_of(control_of(tmp_path)), []

    def run(self, host, script, timeout_s):
        scripts.append(script)
        return Ended(0, "")

    config = {"choices": {"dataset": "svhn"}, "dataset": dataset}
    host = Host("i-1", "10.0.0.1", "10.0.0.1", 0)
    monkeypatch.setattr(LocalTransport, "run", run)
    runs._prepare_data(Watched(LocalTransport(tmp_path), lambda: None), host, place, config, 0.0)
    python = "/opt/byzshield/venv/bin/python"
    assert scripts == [
        f"{python} -m byzshield_exp prepare dataset=svhn "
        f"dataset.root=/var/tmp/byzshield/data{extra}"
    ]
