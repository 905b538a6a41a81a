"""Run Command of AWS Systems Manager: no key and no open port; IAM grants access.

A script is a parameter of the document ``AWS-RunShellScript``, so it holds no secrets. Files go
through a bucket of the user's, to which the instance profile gives the hosts access. There are no
presigned URLs, because anyone who reads one could use it.
"""

import json
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from byzshield_exp.errors import ConfigError, RunError, first_line
from byzshield_exp.launch.ec2.archive import MAX_BYTES, pack_command, unpack
from byzshield_exp.launch.ec2.cloud import code, is_busy
from byzshield_exp.launch.ec2.hosts import TIMED_OUT, Ended, Host, Unreachable, bounded

PARAMETER_BYTES = 60_000  # a document with its parameters may have 64 kB
_DELIVERY_S = 60  # for the host to accept a script; 30 is the minimum
_MARGIN_S = 60.0  # for a script that is over its time to be ended
_ATTEMPTS = 8  # per request, while AWS is busy
_COPY_S = 3600.0  # to copy a file or a folder
_POLL_S = (0.5, 1.0, 2.0, 3.0)  # between polls of a script; the last one repeats
_ENDED = ("Success", "Failed", "TimedOut", "Cancelled")
_GONE = ("InvalidInstanceId", "InvalidInstanceID.NotFound")

Answer = TypeVar("Answer")


class SsmTransport:
    """A transport by Run Command, with a bucket for files.

    Args of the constructor:
        bucket: ``s3://name`` or ``s3://name/prefix``; None if no files are copied.
        region: of the hosts; None for that of the user's AWS configuration.
        user: runs the scripts on the hosts; the agent itself is root there.

    Raises:
        ConfigError: if ``bucket`` has another form.
    """

    def __init__(
        self, bucket: str | None, region: str | None = None, user: str = "ec2-user"
    ) -> None:
        self._bucket, self._prefix = ("", "") if bucket is None else _parse_bucket(bucket)
        self._region, self._user = region, user

    def run(self, host: Host, script: str, timeout_s: float) -> Ended:
        """Run a bash script in the user's home folder.

        Raises:
            Unreachable: if the host does not answer.
            RunError: if the script is too long, or holds ``{{``, a placeholder of Run Command.
        """
        text = _as_user(self._user, bounded(script, timeout_s))
        parameters = {"commands": [text], "executionTimeout": [str(round(timeout_s + _MARGIN_S))]}
        size = len(json.dumps(parameters).encode())
        if size > PARAMETER_BYTES:
            raise RunError(f"a script of {size} bytes is over {PARAMETER_BYTES}: send it as a file")
        if "{{" in text:
            raise RunError("a script for Run Command cannot hold {{: it would be filled in")
        sent = _ask_aws(host, lambda: self._send_command(host, parameters))
        return self._wait_for(host, sent["Command"]["CommandId"], timeout_s)

    def send(self, host: Host, source: Path, target: str) -> None:
        """Copy a file to a host through the bucket.

        Raises:
            Unreachable: if the host does not answer.
            RunError: if it could not be written there.
        """
        key = self._new_key(source.name)
        place = PurePosixPath(target)
        name = f".{place.name}.{secrets.token_hex(4)}.partial"
        partial = shlex.quote(str(place.with_name(name)))
        script = f"""\
set -euo pipefail
mkdir -p {shlex.quote(str(place.parent))}
aws s3 cp --only-show-errors {shlex.quote(f"s3://{self._bucket}/{key}")} {partial}
mv {partial} {shlex.quote(target)}
"""
        try:
            _ask_aws(host, lambda: self._s3.upload_file(str(source), self._bucket, key))
            ended = self.run(host, script, _COPY_S)
        finally:
            self._delete(key)
        if ended.code:
            raise RunError(
                f"{host.name}: {target} cannot be written: {ended.output.strip()[-500:]}"
            )

    def fetch(self, host: Host, source: str, target: Path) -> None:
        """Copy a folder from a host through the bucket.

        Raises:
            Unreachable: if the host does not answer.
            RunError: if it could not be read.
        """
        key = self._new_key("folder.tar")
        address = shlex.quote(f"s3://{self._bucket}/{key}")
        script = f"""\
set -euo pipefail
cd {shlex.quote(source)}
({pack_command(".")}) | aws s3 cp --only-show-errors - {address}
"""
        try:
            ended = self.run(host, script, _COPY_S)
            if ended.code:
                reason = ended.output.strip()[-500:]
                raise RunError(f"{host.name}: {source} cannot be read: {reason}")
            with tempfile.TemporaryFile() as archive:
                _ask_aws(host, lambda: self._download(key, archive))
                archive.seek(0)
                unpack(archive, target)
        finally:
            self._delete(key)

    def close(self) -> None:
        """Close the connections to AWS."""
        for name in ("_ssm", "_s3"):
            client = self.__dict__.pop(name, None)
            if client is not None:
                client.close()

    @cached_property
    def _ssm(self) -> Any:
        return self._client("ssm")

    @cached_property
    def _s3(self) -> Any:
        return self._client("s3")

    def _client(self, service: str) -> Any:
        import boto3
        from botocore.config import Config

        retries: Any = {"mode": "adaptive", "max_attempts": _ATTEMPTS}
        config = Config(
            region_name=self._region, retries=retries, connect_timeout=10, read_timeout=30
        )
        return boto3.session.Session().client(service, config=config)

    def _send_command(self, host: Host, parameters: dict[str, list[str]]) -> Any:
        return self._ssm.send_command(
            InstanceIds=[host.reach],
            DocumentName="AWS-RunShellScript",
            TimeoutSeconds=_DELIVERY_S,
            Parameters=parameters,
        )

    def _wait_for(self, host: Host, command: str, timeout_s: float) -> Ended:
        """Poll a command until it has ended; give up long after its time."""
        deadline = time.monotonic() + _DELIVERY_S + timeout_s + 2 * _MARGIN_S
        number = 0
        while time.monotonic() < deadline:
            time.sleep(_POLL_S[min(number, len(_POLL_S) - 1)])
            number += 1
            answer = _ask_aws(host, lambda: self._invocation(host, command))
            if answer is not None and answer["Status"] in _ENDED:
                return _ended_from(host, answer)
        _ask_aws(
            host, lambda: self._ssm.cancel_command(CommandId=command, InstanceIds=[host.reach])
        )
        raise Unreachable(f"{host.name} does not end a script by Run Command")

    def _invocation(self, host: Host, command: str) -> Any:
        """Return a command's state on a host; None before there is one."""
        try:
            return self._ssm.get_command_invocation(CommandId=command, InstanceId=host.reach)
        except self._ssm.exceptions.InvocationDoesNotExist:
            return None

    def _download(self, key: str, target: IO[bytes]) -> None:
        answer = self._s3.get_object(Bucket=self._bucket, Key=key)
        if answer["ContentLength"] > MAX_BYTES:
            raise RunError(f"the host's archive has {answer['ContentLength']} bytes: too many")
        shutil.copyfileobj(answer["Body"], target)

    def _new_key(self, name: str) -> str:
        if not self._bucket:
            raise ConfigError(
                "bucket is not given: Run Command copies files through s3://name/prefix"
            )
        return f"{self._prefix}{secrets.token_hex(8)}/{name}"

    def _delete(self, key: str) -> None:
        """Delete a file from the bucket; after a failure, the bucket's lifecycle rule has to."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._s3.delete_object(Bucket=self._bucket, Key=key)
        except (BotoCoreError, ClientError):
            return


def _parse_bucket(address: str) -> tuple[str, str]:
    kind, _, rest = address.partition("://")
    name, _, prefix = rest.partition("/")
    if kind != "s3" or not name:
        raise ConfigError(f"bucket={address} must be s3://name or s3://name/prefix")
    prefix = prefix.strip("/")
    return name, f"{prefix}/" if prefix else ""


def _as_user(user: str, script: str) -> str:
    """Return a script for root's shell that runs a script as a user, in the user's home folder."""
    mark, name = f"user-{secrets.token_hex(8)}", shlex.quote(user)
    return f"""\
HOME=$(getent passwd {name} | cut -d : -f 6) && export HOME && cd "$HOME" || exit 1
runuser -u {name} -- sh -s <<'{mark}'
{script}{mark}
"""


def _ask_aws(host: Host, ask: Callable[[], Answer]) -> Answer:
    """Return the answer of AWS to a request about a host.

    Raises:
        Unreachable: if AWS cannot reach the host, or does not answer.
        RunError: if AWS refuses.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except ClientError as error:
        kind = Unreachable if code(error) in _GONE or is_busy(error) else RunError
        raise kind(f"{host.name}: {first_line(error)}") from error
    except BotoCoreError as error:
        raise Unreachable(f"{host.name}: AWS does not answer: {first_line(error)}") from error
    except Boto3Error as error:
        raise RunError(f"{host.name}: {first_line(error)}") from error


def _ended_from(host: Host, answer: dict[str, Any]) -> Ended:
    details = answer["StatusDetails"].replace(" ", "")
    output = answer["StandardOutputContent"] + answer["StandardErrorContent"]
    if details in ("Success", "Failed") and answer["ResponseCode"] >= 0:
        return Ended(answer["ResponseCode"], output)
    if details == "ExecutionTimedOut":
        return Ended(TIMED_OUT, output)
    raise Unreachable(f"{host.name} does not answer by Run Command: {details}")
