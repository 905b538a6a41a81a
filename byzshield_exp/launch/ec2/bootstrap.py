"""User data: the script that prepares a fresh machine for jobs.

Anybody who may describe the instance, and every process on it, can read the script, so it holds no
secret. First it schedules the machine's shutdown, which needs no driver and which a restart does
not postpone. It may be run again.
"""

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.launch.ec2.hosts import Host, HostTransport, Unreachable, on_all

_POLL_TIMEOUT_S = 30.0
_POLL_EVERY_S = 10.0
_EFS = re.compile(r"fs-[0-9a-f]{8,40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PUBLIC_KEY = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-zA-Z0-9@.-]+ [A-Za-z0-9+/=]+( [^\n]*)?")


@dataclass(frozen=True)
class Bootstrap:
    """What a machine needs before it can run a job.

    Attributes:
        max_minutes: after which the machine shuts itself down, which terminates it.
        wheel: of this package: ``s3://...``, or a path on the machine to which the driver or a
            shared folder delivers it.
        wheel_sha256: checksum of that file.
        efs: the id of a shared file system, mounted over TLS; None for none.
        mount_point: where the file system is mounted.
        region: of ``efs`` and of ``s3://``; None for the machine's own.
        user: runs the jobs, and owns the mount point.
        folder: holds the environment, the log and the state of the preparation.
        python: a command; on Amazon Linux also the name of its package.
        pip_arguments: such as ``--index-url https://download.pytorch.org/whl/cpu``.
        authorized_keys: public keys that may log in as ``user``.
        wheel_within_minutes: how long to wait for a wheel that is delivered.

    Raises:
        ConfigError: if a value cannot work, or holds a secret.
    """

    max_minutes: int
    wheel: str
    wheel_sha256: str
    efs: str | None = None
    mount_point: str = "/mnt/byzshield"
    region: str | None = None
    user: str = "ec2-user"
    folder: str = "/opt/byzshield"
    python: str = "python3.11"
    pip_arguments: tuple[str, ...] = ()
    authorized_keys: tuple[str, ...] = ()
    wheel_within_minutes: int = 20

    def __post_init__(self) -> None:
        if self.max_minutes < 1:
            raise ConfigError(f"max_minutes={self.max_minutes} must be at least 1")
        if not self.wheel.endswith(".whl") or not self.wheel.startswith(("s3://", "/")):
            raise ConfigError(f"wheel={self.wheel} must be s3://....whl or an absolute path of one")
        if not _SHA256.fullmatch(self.wheel_sha256):
            raise ConfigError(f"wheel_sha256={self.wheel_sha256} must be 64 hexadecimal digits")
        if self.efs is not None and not _EFS.fullmatch(self.efs):
            raise ConfigError(f"efs={self.efs} must be the id of a file system, fs-...")
        for key in self.authorized_keys:
            if not _PUBLIC_KEY.fullmatch(key):
                raise ConfigError("authorized_keys: there is one that is no public key")
        for argument in self.pip_arguments:
            if re.search(r"://[^/\s]*@", argument):
                raise ConfigError("pip_arguments: there is an address with a password")

    @property
    def environment_python(self) -> str:
        """The interpreter that runs jobs on the machine."""
        return f"{self.folder}/venv/bin/python"


def user_data(bootstrap: Bootstrap) -> str:
    """Return the script, for bash as root."""
    parts = [
        _SHUTDOWN.format(minutes=bootstrap.max_minutes, folder=shlex.quote(bootstrap.folder)),
        _LOGGING,
        *([_authorize_keys(bootstrap)] if bootstrap.authorized_keys else []),
        *([_mount_efs(bootstrap)] if bootstrap.efs is not None else []),
        _install(bootstrap),
    ]
    return "\n".join(parts)


def wait_until_ready(
    transport: HostTransport,
    hosts: Sequence[Host],
    bootstrap: Bootstrap,
    timeout_s: float,
    look_every_s: float = _POLL_EVERY_S,
) -> None:
    """Wait until all machines are ready.

    Raises:
        RunError: if one fails, or is not ready in time.
    """
    deadline = time.monotonic() + timeout_s
    waiting = {host: "" for host in hosts}
    script = _SHOW_STATE.format(folder=shlex.quote(bootstrap.folder))
    while waiting:
        asked = list(waiting)
        answers = on_all(asked, lambda host: transport.run(host, script, _POLL_TIMEOUT_S))
        for host, answer in zip(asked, answers, strict=True):
            if isinstance(answer, Unreachable):
                waiting[host] = str(answer)
                continue
            state, _, rest = answer.output.strip().partition("\n")
            if state.startswith("failed"):
                raise RunError(f"{host.name} could not make itself ready: {state}; {rest[-300:]}")
            waiting[host] = f"it is not ready: {state or 'it says nothing'}"
            if state == f"ready {bootstrap.wheel_sha256}":
                del waiting[host]
        if waiting and time.monotonic() > deadline:
            host, why = next(iter(waiting.items()))
            raise RunError(f"{host.name} is not ready after {timeout_s:.0f} s: {why}")
        if waiting:
            time.sleep(look_every_s)


_SHUTDOWN = """\
#!/bin/bash
shutdown -h +{minutes} || shutdown -h now
set -euo pipefail
folder={folder}
mkdir -p "$folder"
if [ ! -f "$folder/deadline" ]; then
    echo "$(($(date +%s) + 60 * {minutes}))" > "$folder/deadline"
fi
# A restart forgets the shutdown: cloud-init runs this at every start, for the time that is left.
cat > "$folder/end.sh" <<'end-of-script'
#!/bin/bash
left=$((($(cat "$(dirname "$(readlink -f "$0")")/deadline") - $(date +%s)) / 60))
shutdown -h "+$((left > 0 ? left : 0))" || shutdown -h now
end-of-script
chmod 755 "$folder/end.sh"
if [ -d /var/lib/cloud/scripts/per-boot ]; then
    ln -sf "$folder/end.sh" /var/lib/cloud/scripts/per-boot/byzshield-end
fi
"$folder/end.sh"
"""

_LOGGING = """\
exec >> "$folder/bootstrap.log" 2>&1
rm -f "$folder/state"
failed() {
    echo "failed at line $1" > "$folder/state"
}
trap 'failed "$LINENO"' ERR
if [ -w /dev/console ] && [ -f /etc/ssh/ssh_host_ed25519_key.pub ]; then
    {
        echo '-----BEGIN SSH HOST KEY KEYS-----'
        cat /etc/ssh/ssh_host_*_key.pub
        echo '-----END SSH HOST KEY KEYS-----'
    } > /dev/console || true
fi
"""

_SHOW_STATE = """\
cd {folder} 2> /dev/null || exit 0
cat state 2> /dev/null || echo working
tail -n 3 bootstrap.log 2> /dev/null
exit 0
"""


def _authorize_keys(bootstrap: Bootstrap) -> str:
    keys = "\n".join(bootstrap.authorized_keys)
    return f"""\
user={shlex.quote(bootstrap.user)}
home=$(getent passwd "$user" | cut -d : -f 6)
install -d -m 700 -o "$user" "$home/.ssh"
touch "$home/.ssh/authorized_keys"
while read -r key; do
    grep -qxF "$key" "$home/.ssh/authorized_keys" || echo "$key" >> "$home/.ssh/authorized_keys"
done <<'end-of-keys'
{keys}
end-of-keys
chown "$user" "$home/.ssh/authorized_keys"
chmod 600 "$home/.ssh/authorized_keys"
"""


def _mount_efs(bootstrap: Bootstrap) -> str:
    """Return commands that mount the file system; its DNS name may need minutes to appear."""
    region = f",region={shlex.quote(bootstrap.region)}" if bootstrap.region else ""
    return f"""\
user={shlex.quote(bootstrap.user)}
mount_point={shlex.quote(bootstrap.mount_point)}
if ! command -v mount.efs > /dev/null; then
    dnf install -y amazon-efs-utils
fi
mkdir -p "$mount_point"
entry="{bootstrap.efs}:/ $mount_point efs _netdev,tls,iam{region} 0 0"
grep -qxF "$entry" /etc/fstab || echo "$entry" >> /etc/fstab
for attempt in $(seq 30); do
    if mountpoint -q "$mount_point" || mount "$mount_point"; then
        break
    fi
    echo "attempt $attempt to mount {bootstrap.efs} failed"
    sleep 10
done
mountpoint -q "$mount_point"
chown "$user" "$mount_point"
"""


def _install(bootstrap: Bootstrap) -> str:
    name = PurePosixPath(bootstrap.wheel).name
    pip = shlex.join(["pip", "install", "--no-input", *bootstrap.pip_arguments])
    return f"""\
python={shlex.quote(bootstrap.python)}
if ! command -v "$python" > /dev/null; then
    dnf install -y "$python" "$python-pip"
fi
wheel="$folder"/{shlex.quote(name)}
{_get_wheel(bootstrap)}
echo "{bootstrap.wheel_sha256}  $wheel" | sha256sum --check --strict -
[ -x "$folder/venv/bin/python" ] || "$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m {pip} "$wheel"
echo "ready {bootstrap.wheel_sha256}" > "$folder/.state"
mv "$folder/.state" "$folder/state"
"""


def _get_wheel(bootstrap: Bootstrap) -> str:
    source = shlex.quote(bootstrap.wheel)
    if bootstrap.wheel.startswith("s3://"):
        region = f" --region {shlex.quote(bootstrap.region)}" if bootstrap.region else ""
        return f'aws s3 cp --only-show-errors{region} {source} "$wheel"'
    return f"""\
for _ in $(seq {6 * bootstrap.wheel_within_minutes}); do
    if [ -f {source} ]; then
        break
    fi
    sleep 10
done
if [ ! {source} -ef "$wheel" ]; then
    cp {source} "$wheel"
fi"""
