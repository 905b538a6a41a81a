"""User data: read by shellcheck, and run for real with stand-ins for what reaches outside."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from rented_hosts import shellcheck

from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.launch.ec2.bootstrap import Bootstrap, user_data, wait_until_ready
from byzshield_exp.launch.ec2.hosts import Host, Unreachable
from byzshield_exp.launch.ec2.local import LocalTransport

pytestmark = pytest.mark.slow  # together they take minutes

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO2NzZ6gqn8VdL me@here"
PLAIN = Bootstrap(90, "s3://bucket/some/byzshield-1-py3-none-any.whl", "0" * 64)
FULL = replace(
    PLAIN,
    efs="fs-0123456789abcdef0",
    region="eu-west-1",
    pip_arguments=("--extra-index-url", "https://download.pytorch.org/whl/cpu"),
    authorized_keys=(KEY,),
)
BROUGHT = replace(PLAIN, wheel="/var/tmp/some folder/it's-1-py3-none-any.whl")


@pytest.mark.parametrize("bootstrap", [PLAIN, FULL, BROUGHT])
def test_user_data_is_sound_bash(bootstrap):
    script = user_data(bootstrap)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    program = shellcheck()
    if program is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([program, "-S", "style", "-"], input=script, text=True, check=True)


@pytest.mark.parametrize("bootstrap", [PLAIN, FULL, BROUGHT])
def test_the_end_of_the_machine_is_set_before_anything_else(bootstrap):
    lines = user_data(bootstrap).splitlines()
    assert lines[:3] == [
        "#!/bin/bash",
        "shutdown -h +90 || shutdown -h now",
        "set -euo pipefail",
    ]


def test_user_data_fits_and_holds_only_public_things():
    many = replace(FULL, authorized_keys=(KEY,) * 20)
    assert len(user_data(many).encode()) < 16_384
    assert "PRIVATE" not in user_data(FULL)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_minutes", 0, "max_minutes=0 must be at least 1"),
        ("wheel", "https://host/a.whl?signature=x", "must be s3://"),
        ("wheel_sha256", "abc", "must be 64 hexadecimal digits"),
        ("efs", "fs-1; reboot", "must be the id of a file system"),
        ("pip_arguments", ("--index-url", "https://me:word@host/simple"), "with a password"),
        (
            "authorized_keys",
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n",),
            "no public key",
        ),
    ],
)
def test_what_cannot_work_or_is_secret_is_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        replace(PLAIN, **{key: value})


# --- run for real ---

STAND_IN = """\
#!/bin/bash
echo "$(basename "$0") $*" >> {log}
{does}
"""


@pytest.fixture
def machine(tmp_path):
    """A machine in a mount namespace; ``machine(bootstrap)`` runs its user data as root.

    The wheel, Python and pip are real; what reaches outside the machine is a stand-in.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    if subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("there are no mount namespaces here")
    commands, log = tmp_path / "commands", tmp_path / "log"
    commands.mkdir()
    does = {
        "shutdown": "",
        "dnf": "",
        "mount.efs": "",
        "mount": f"touch {tmp_path}/mounted",
        "mountpoint": f"test -f {tmp_path}/mounted",
        "getent": f"echo root:x:0:0::{tmp_path}/home:/bin/bash",
        "aws": f'[ "$3" = --only-show-errors ] && cp {tmp_path}/source.whl "${{@: -1}}"',
    }
    for name, action in does.items():
        (commands / name).write_text(STAND_IN.format(log=log, does=action))
        (commands / name).chmod(0o755)
    (tmp_path / "fstab").touch()
    (tmp_path / "home").mkdir()

    def run(bootstrap: Bootstrap) -> list[str]:
        (tmp_path / "user-data").write_text(user_data(bootstrap))
        log.unlink(missing_ok=True)
        script = f"mount --bind {tmp_path}/fstab /etc/fstab && PATH={commands}:$PATH exec bash "
        script += str(tmp_path / "user-data")
        subprocess.run(["unshare", "-m", "bash", "-c", script], timeout=120)
        return log.read_text().splitlines()

    return run


@pytest.fixture
def wheel(tmp_path):
    """A package of one module, as a wheel, and what its machine needs to know."""
    path = tmp_path / "source.whl"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("said.py", "word = 'sesame'\n")
        info = "said-1.0.dist-info"
        content.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: said\nVersion: 1.0\n")
        content.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        content.writestr(f"{info}/RECORD", "")
    return Bootstrap(
        90,
        "s3://bucket/said-1.0-py3-none-any.whl",
        hashlib.sha256(path.read_bytes()).hexdigest(),
        folder=f"{tmp_path}/opt",
        mount_point=f"{tmp_path}/shared",
        user="root",
        python=sys.executable,
        pip_arguments=("--no-index", "--disable-pip-version-check"),
    )


HOST = Host("i-1", "127.0.0.1", "here", 0)


def test_a_machine_makes_itself_ready_twice(machine, wheel, tmp_path):
    full = replace(wheel, efs="fs-0123456789abcdef0", authorized_keys=(KEY,))
    done = machine(full)
    assert done[0] == "shutdown -h +90"
    assert done[1] in ("shutdown -h +89", "shutdown -h +90")
    assert f"mount {tmp_path}/shared" in done
    wait_until_ready(LocalTransport(tmp_path), [HOST], full, 0.0)
    said = subprocess.run(
        [full.environment_python, "-c", "import said; print(said.word)"],
        capture_output=True,
        text=True,
        env={},
    )
    assert said.stdout == "sesame\n"
    deadline = (tmp_path / "opt/deadline").read_text()
    (tmp_path / "opt/deadline").write_text(str(int(deadline) - 1800))

    again = machine(full)
    assert again[1] in ("shutdown -h +59", "shutdown -h +60")  # not put off
    wait_until_ready(LocalTransport(tmp_path), [HOST], full, 0.0)
    assert (tmp_path / "home/.ssh/authorized_keys").read_text() == f"{KEY}\n"
    assert (tmp_path / "fstab").read_text() == (
        f"fs-0123456789abcdef0:/ {tmp_path}/shared efs _netdev,tls,iam 0 0\n"
    )


def test_a_wheel_that_was_changed_is_not_installed(machine, wheel, tmp_path):
    machine(replace(wheel, wheel_sha256="0" * 64))
    assert not (tmp_path / "opt/venv").exists()
    with pytest.raises(RunError, match=r"i-1 could not make itself ready: failed at line \d+;"):
        wait_until_ready(LocalTransport(tmp_path), [HOST], wheel, 0.0)
    machine(wheel)  # once it is there
    wait_until_ready(LocalTransport(tmp_path), [HOST], wheel, 0.0)


def test_a_wheel_may_be_brought_while_the_machine_waits(machine, wheel, tmp_path):
    place = tmp_path / "brought here" / "said-1.0-py3-none-any.whl"
    place.parent.mkdir()
    shutil.copy(tmp_path / "source.whl", place)
    machine(replace(wheel, wheel=str(place)))
    wait_until_ready(LocalTransport(tmp_path), [HOST], wheel, 0.0)


def test_a_machine_that_is_not_ready_in_time_is_named_with_its_reason(tmp_path, monkeypatch):
    (tmp_path / "opt").mkdir()
    slow = replace(PLAIN, folder=f"{tmp_path}/opt")
    with pytest.raises(RunError, match="i-1 is not ready after 0 s: it is not ready: working"):
        wait_until_ready(LocalTransport(tmp_path), [HOST], slow, 0.0)

    asked = []

    def silent(*_):
        asked.append(1)
        raise Unreachable("i-1 does not answer")

    monkeypatch.setattr(LocalTransport, "run", silent)
    with pytest.raises(RunError, match=r"not ready after 0 s: i-1 does not answer"):
        wait_until_ready(LocalTransport(tmp_path), [HOST], slow, 0.4, look_every_s=0.1)
    assert len(asked) >= 2
