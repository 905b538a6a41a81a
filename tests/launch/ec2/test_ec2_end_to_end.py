"""A real job over real torchrun on three machines (network namespaces) by SSH, and its troubles."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rented_hosts import Network, marked, why_not
from running import metrics_of, summary_of

import byzshield_exp
from byzshield_exp.launch.ec2.gang import Gang, GangEnd, end_gang, run_gang
from byzshield_exp.launch.job import describe

pytest.importorskip("asyncssh", reason="asyncssh is not installed: the extra ssh")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]

PACKAGE = Path(byzshield_exp.__file__).parents[1]
STEPS = 300
DRIVER = """\
import sys
from pathlib import Path
from byzshield_exp.launch.ec2.gang import Gang, run_gang
from byzshield_exp.launch.ec2.hosts import Host
from byzshield_exp.launch.ec2.ssh import SshTransport
known_hosts, key, gang = eval(sys.stdin.read())
run_gang(SshTransport(known_hosts, "root", Path(key)), gang)
"""


@pytest.fixture
def job(plain_config, tmp_path):
    """``job(number of processes, steps) -> path of a job``."""

    def make(num_processes: int, steps: int) -> Path:
        cluster = ["cluster=processes", f"cluster.num_processes={num_processes}"]
        config = plain_config(
            *(cluster if num_processes > 1 else []),
            f"steps={steps}",
            "eval_every=50",
            "checkpoint_every=10",
            "attack=alie",
            f"output_dir={tmp_path}/shared/{num_processes}",
        )
        return describe(config, "run")[0].save()

    return make


@pytest.fixture
def gang(machines, job, ssh, tmp_path):
    """``gang(name, steps)``: a job on the three machines, with 2, 1 and 1 processes."""
    made = []
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={PACKAGE} exec {sys.executable} "$@"\n')
    python.chmod(0o755)

    def make(name: str, steps: int = STEPS) -> Gang:
        one = Gang(
            f"{name}-{os.getpid()}",
            machines.hosts,
            (2, 1, 1),
            str(job(4, steps)),
            python=str(python),
            folder=str(tmp_path / "gangs"),
            look_every_s=0.5,
            lost_after_s=8.0,
            end_within_s=40.0,
        )
        made.append(one)
        return one

    yield make
    for one in made:
        end_gang(ssh, one, 0.0)


@pytest.fixture
def undisturbed(job):
    """What the same job ends with in one process on one machine."""

    def make(steps: int = STEPS) -> str:
        path = job(1, steps)
        subprocess.run([sys.executable, "-m", "byzshield_exp", "job", str(path)], check=True)
        return summary_of(path.parent)["parameters_sha256"]

    return make


def started(act: Callable[[], GangEnd]) -> tuple[threading.Thread, list[GangEnd]]:
    """Do it in a thread."""
    ends: list[GangEnd] = []
    thread = threading.Thread(target=lambda: ends.append(act()))
    thread.start()
    return thread, ends


def wait_for_steps(folder: Path, count: int) -> None:
    """Until a run has done so many steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list(folder.glob("**/metrics.jsonl")) and len(metrics_of(folder)) >= count:
            return
        time.sleep(0.2)
    raise TimeoutError(f"no {count} steps in {folder}")


def secrets_of(machines: Network) -> list[str]:
    """The lines of all private keys."""
    keys = [machines.user_key, *machines.folder.glob("sshd*/host_key")]
    return [line for key in keys for line in key.read_text().splitlines() if "-----" not in line]


def test_three_machines_end_as_one_and_nothing_secret_shows(
    ssh, machines, gang, undisturbed, tmp_path, caplog
):
    caplog.set_level("DEBUG")
    one = gang("plain", 40)
    seen: set[str] = set()
    thread, ends = started(lambda: run_gang(ssh, one))
    while thread.is_alive():
        seen.update(
            subprocess.run(
                ["ps", "axww", "-o", "args"], capture_output=True, text=True
            ).stdout.split("\n")
        )
        time.sleep(0.1)
    (end,) = ends
    assert (end.code, dict(end.codes), dict(end.lost)) == (0, {"i-0": 0, "i-1": 0, "i-2": 0}, {})
    assert marked(one) == []

    ssh.fetch(machines.hosts[0], f"{tmp_path}/shared/4/run", tmp_path / "came")
    summary = summary_of(tmp_path / "came")
    assert summary["parameters_sha256"] == undisturbed(40)
    names = {path.name for path in (tmp_path / "came").iterdir()}
    assert {"status.json", "config.yaml", "metrics.jsonl", "log.txt", "checkpoints"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert json.loads((tmp_path / "came/status.json").read_text())["state"] == "done"

    assert any("byzshield_exp job" in line for line in seen)  # it did look
    logs = [caplog.text, end.output, *seen]
    for pattern in ("gangs/**/*", "came/**/*"):
        files = (path for path in tmp_path.glob(pattern) if path.is_file())
        logs += [path.read_bytes().decode(errors="replace") for path in files]
    for secret in secrets_of(machines):
        assert not any(secret in log for log in logs)
    ours = [line for line in seen if "byzshield" in line or "torch" in line]
    assert not any(re.search(r"\b[0-9a-f]{64}\b", line) for line in ours)  # the group's secret


def test_a_lost_machine_ends_the_gang_and_another_attempt_goes_on(
    ssh, machines, gang, undisturbed, tmp_path
):
    one = gang("lost")
    thread, ends = started(lambda: run_gang(ssh, one))
    wait_for_steps(tmp_path / "shared/4", 20)
    machines.unplug(2)
    try:
        thread.join(150)
        (end,) = ends
        assert end.code == -1
        assert list(end.lost) == ["i-2"]
        assert "does not answer by ssh" in end.lost["i-2"]
        assert marked(one, "0") == marked(one, "1") == []
    finally:
        machines.plug_in(2)
    assert end_gang(ssh, one, 5.0) == []
    assert marked(one) == []

    done = len(metrics_of(tmp_path / "shared/4"))
    assert done < STEPS
    again = run_gang(ssh, gang("again"))
    assert again.code == 0, again.output
    assert "resum" in again.output
    assert summary_of(tmp_path / "shared/4")["parameters_sha256"] == undisturbed()


def test_a_killed_driver_finds_its_gang_again(ssh, machines, gang, undisturbed, tmp_path):
    one = gang("driven")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    assert driver.stdin is not None
    driver.stdin.write(repr((machines.known_hosts, str(machines.user_key), one)))
    driver.stdin.close()
    wait_for_steps(tmp_path / "shared/4", 20)
    before = marked(one)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(2)
    assert len(metrics_of(tmp_path / "shared/4")) < STEPS
    end = run_gang(ssh, one)
    assert (end.code, dict(end.lost)) == (0, {}), end.output
    assert "resum" not in end.output  # the same processes went on
    assert before
    assert summary_of(tmp_path / "shared/4")["parameters_sha256"] == undisturbed()


def test_a_gang_that_is_asked_to_end_makes_a_checkpoint(ssh, gang, tmp_path):
    one = gang("asked", 100_000)
    thread, ends = started(lambda: run_gang(ssh, one))
    wait_for_steps(tmp_path / "shared/4", 20)
    assert end_gang(ssh, one) == []
    thread.join(30)
    assert marked(one) == []
    assert ends[0].code != 0
    status = json.loads((tmp_path / "shared/4/run/status.json").read_text())
    assert status["state"] == "stopped"
    saved = max(path.stem for path in (tmp_path / "shared/4/run/checkpoints").iterdir())
    assert int(re.sub(r"\D", "", saved)) == len(metrics_of(tmp_path / "shared/4"))
