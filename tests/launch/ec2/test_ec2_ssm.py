"""Run Command without AWS: an endpoint over HTTP that really runs scripts, with AWS's limits."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session

from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.launch.ec2 import ssm
from byzshield_exp.launch.ec2.gang import Gang, run_gang
from byzshield_exp.launch.ec2.hosts import OUTPUT_BYTES, Ended, Host, Unreachable, bounded
from byzshield_exp.launch.ec2.ssm import SsmTransport

HOST = Host("i-0123456789abcdef0", "127.0.0.1", "i-0123456789abcdef0", 0)
OFF = Host("i-0aaaaaaaaaaaaaaaa", "127.0.0.1", "i-0aaaaaaaaaaaaaaaa", 1)
GONE = Host("i-0bbbbbbbbbbbbbbbb", "127.0.0.1", "i-0bbbbbbbbbbbbbbbb", 2)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("runuser") is None, reason="needs root and runuser"
)


@dataclass
class Service:
    """Systems Manager: one instance that runs what it is sent, one that is off, no others.

    Attributes:
        folder: for scripts.
        path: of the programs on the instance.
        requests: all that was asked, as text.
        invocations: what is known, by command.
        throttled: how many requests are still refused as too many.
        hears: whether a command reaches the instance.
    """

    folder: Path
    path: str = ""
    requests: list[str] = field(default_factory=list)
    invocations: dict[str, dict[str, Any]] = field(default_factory=dict)
    throttled: int = 0
    hears: bool = True

    def answer(self, operation: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The status and the body."""
        self.requests.append(f"{operation} {json.dumps(asked)}")
        if self.throttled:
            self.throttled -= 1
            return _refused("ThrottlingException", "Rate exceeded")
        return getattr(self, operation)(asked)

    def SendCommand(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        (instance,), parameters = asked["InstanceIds"], asked["Parameters"]
        if instance not in (HOST.reach, OFF.reach):
            return _refused("InvalidInstanceId", "Instances not in a valid state for account")
        if asked["DocumentName"] != "AWS-RunShellScript":
            return _refused("InvalidDocument", "no such document")
        if not parameters.keys() <= {"commands", "workingDirectory", "executionTimeout"}:
            return _refused("InvalidParameters", "no such parameter")
        if len(json.dumps(parameters)) > 64 * 1024:
            return _refused("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")
        command = f"{len(self.invocations):08d}-0000-0000-0000-000000000000"
        status = "Delayed" if instance == OFF.reach or not self.hears else "Pending"
        self.invocations[command] = {
            "CommandId": command,
            "InstanceId": instance,
            "Status": status,
            "StatusDetails": status,
            "ResponseCode": -1,
            "StandardOutputContent": "",
            "StandardErrorContent": "",
            "asked": 0,
        }
        if status == "Pending":
            threading.Thread(target=self._run, args=(command, parameters), daemon=True).start()
        return 200, {"Command": {"CommandId": command, "Parameters": parameters}}

    def GetCommandInvocation(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        invocation = self.invocations[asked["CommandId"]]
        invocation["asked"] += 1
        if invocation["asked"] == 1:  # it is known everywhere only after a moment
            return _refused("InvocationDoesNotExist", "")
        if invocation["Status"] == "Delayed" and invocation["asked"] > 2:
            invocation |= {"Status": "TimedOut", "StatusDetails": "DeliveryTimedOut"}
        return 200, {key: value for key, value in invocation.items() if key != "asked"}

    def CancelCommand(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.invocations[asked["CommandId"]]["Status"] = "Cancelled"
        return 200, {}

    def _run(self, command: str, parameters: dict[str, list[str]]) -> None:
        """As the agent does: a file of its own, by sh, as root, with a small environment."""
        invocation = self.invocations[command]
        script = self.folder / f"{command}.sh"
        script.write_text("\n".join(parameters["commands"]))
        invocation |= {"Status": "InProgress", "StatusDetails": "InProgress"}
        try:
            ended = subprocess.run(
                ["sh", str(script)],
                capture_output=True,
                timeout=float(parameters["executionTimeout"][0]),
                env={"PATH": self.path},
                cwd="/",
            )
        except subprocess.TimeoutExpired:
            invocation |= {"Status": "TimedOut", "StatusDetails": "ExecutionTimedOut"}
            return
        status = "Failed" if ended.returncode else "Success"
        invocation |= {
            "StandardOutputContent": ended.stdout.decode(errors="replace")[:24_000],
            "StandardErrorContent": ended.stderr.decode(errors="replace")[:8_000],
            "ResponseCode": ended.returncode,
        }
        invocation |= {"Status": status, "StatusDetails": status}


def _refused(code: str, message: str) -> tuple[int, dict[str, Any]]:
    return 400, {"__type": code, "message": message}


@pytest.fixture
def service(tmp_path, monkeypatch) -> Iterator[Service]:
    """The service at an endpoint of this machine; nobody's credentials are used."""
    made = Service(tmp_path, path=os.environ["PATH"])

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            operation = self.headers["X-Amz-Target"].partition(".")[2]
            status, answer = made.answer(operation, json.loads(content))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame-that-nobody-may-see")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr(ssm, "_POLL_S", (0.05, 0.1))
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def transport(service):
    made = SsmTransport("s3://some-bucket/of/mine", user="root")
    yield made
    made.close()


def test_what_is_relied_on_is_in_botocores_own_model():
    model = get_session().get_service_model("ssm")
    sending = model.operation_model("SendCommand")
    members = sending.input_shape.members
    assert members["TimeoutSeconds"].metadata["min"] <= ssm._DELIVERY_S
    assert members["Parameters"].metadata["sensitive"]
    errors = {error.name: error.documentation for error in sending.error_shapes}
    assert "64 KB" in errors["MaxDocumentSizeExceeded"]
    assert set(ssm._GONE[:1]) <= errors.keys()
    asking = model.operation_model("GetCommandInvocation")
    shape = asking.output_shape.members
    assert OUTPUT_BYTES < shape["StandardOutputContent"].metadata["max"] == 24_000
    assert set(ssm._ENDED) <= set(shape["Status"].enum)
    assert set(shape["Status"].enum) - set(ssm._ENDED) == {
        "Pending", "InProgress", "Delayed", "Cancelling"
    }  # fmt: skip
    assert "Execution Timed Out" in shape["StatusDetails"].documentation
    assert "InvocationDoesNotExist" in {error.name for error in asking.error_shapes}


def test_a_script_runs_and_its_end_comes_back(transport):
    script = "set -o pipefail\ncat\necho \"$HOME '$USER_OF_MINE'\"\necho wrong >&2\nexit 3"
    assert transport.run(HOST, script, 5.0) == Ended(3, "/root ''\nwrong\n")


def test_the_end_of_a_long_output_is_within_what_run_command_shows(transport):
    ended = transport.run(HOST, "seq 100000; echo last; printf 'ä%.0s' {1..500}", 10.0)
    assert ended.output.endswith(f"100000\nlast\n{'ä' * 500}")
    assert 19_000 < len(ended.output) <= 20_000


def test_a_script_that_takes_too_long_is_ended(transport):
    assert transport.run(HOST, "echo begun; sleep 60", 1.0) == Ended(124, "begun\n")


def test_somebody_else_works_on_the_host(service):
    transport = SsmTransport(None, user="daemon")
    assert transport.run(HOST, "id -un; pwd", 5.0).output.split() == ["daemon", "/usr/sbin"]
    transport.close()


def test_a_host_that_is_off_or_gone_is_unreachable(transport, service):
    with pytest.raises(Unreachable, match="does not answer by Run Command: DeliveryTimedOut"):
        transport.run(OFF, "echo hello", 5.0)
    with pytest.raises(Unreachable, match=r"i-0bbbb.*InvalidInstanceId"):
        transport.run(GONE, "echo hello", 5.0)


def test_a_host_that_never_ends_a_script_is_given_up(transport, service, monkeypatch):
    monkeypatch.setattr(ssm, "_DELIVERY_S", 30)
    monkeypatch.setattr(ssm, "_MARGIN_S", -14.8)  # 0.4 s in all
    monkeypatch.setattr(Service, "_run", lambda *_: None)
    with pytest.raises(Unreachable, match="does not end a script"):
        transport.run(HOST, "echo hello", 0.0)
    assert "Cancelled" in {one["Status"] for one in service.invocations.values()}


def test_aws_that_does_not_answer_is_unreachable(service, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(ssm, "_ATTEMPTS", 1)
    transport = SsmTransport(None)
    with pytest.raises(Unreachable, match="AWS does not answer"):
        transport.run(HOST, "echo hello", 5.0)
    transport.close()


@pytest.mark.slow
def test_a_request_that_is_one_too_many_is_asked_again(transport, service):
    service.throttled = 2
    assert transport.run(HOST, "echo hello", 5.0).output == "hello\n"


@pytest.mark.slow
def test_a_script_that_is_too_large_is_refused_before_it_is_sent(transport, service):
    with pytest.raises(RunError, match="send it as a file"):
        transport.run(HOST, "#" * 65_000, 5.0)
    with pytest.raises(RunError, match=r"cannot hold \{\{"):
        transport.run(HOST, "echo {{ssm:some-parameter}}", 5.0)
    assert service.requests == []
    text = "echo '" + "'\necho '".join(['"\\'] * 4300) + "'"  # each sign doubles as JSON
    size = len(json.dumps({"commands": [bounded(text, 5.0)]}))
    assert 52_000 < size < ssm.PARAMETER_BYTES
    assert transport.run(HOST, text, 5.0).code == 0


@pytest.mark.parametrize("bucket", ["name/prefix", "s3://", "https://bucket"])
def test_a_bucket_is_an_address(bucket):
    with pytest.raises(ConfigError, match="must be s3://name"):
        SsmTransport(bucket)


def test_files_need_a_bucket(service, tmp_path):
    with pytest.raises(ConfigError, match="bucket is not given"):
        SsmTransport(None).fetch(HOST, "/tmp", tmp_path)


# --- files, by way of moto's S3 ---

AWS = """\
#!{python}
import sys, boto3
kind, what, quiet, source, target = sys.argv[1:]
assert (kind, what, quiet) == ("s3", "cp", "--only-show-errors")
s3 = boto3.client("s3", endpoint_url="{endpoint}", region_name="eu-west-1",
                  aws_access_key_id="the", aws_secret_access_key="profile")
if source.startswith("s3://"):
    bucket, _, key = source[5:].partition("/")
    s3.download_file(bucket, key, target)
else:
    bucket, _, key = target[5:].partition("/")
    s3.upload_fileobj(sys.stdin.buffer, bucket, key)
"""


@pytest.fixture
def bucket(service, tmp_path, monkeypatch):
    """moto's S3 with the bucket, and ``aws`` on the instance with the instance's own profile."""
    server = Path(sys.executable).with_name("moto_server")
    if not server.exists():
        pytest.skip("moto's server is not installed")
    import boto3

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    with (tmp_path / "moto.log").open("wb") as log:
        process = subprocess.Popen([server, "-p", str(port)], stdout=log, stderr=log)
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        s3 = boto3.client("s3")
        place = {"LocationConstraint": "eu-west-1"}
        s3.create_bucket(Bucket="some-bucket", CreateBucketConfiguration=place)
        programs = tmp_path / "programs"
        programs.mkdir()
        (programs / "aws").write_text(AWS.format(python=sys.executable, endpoint=endpoint))
        (programs / "aws").chmod(0o755)
        service.path = f"{programs}:{os.environ['PATH']}"
        yield s3
        s3.close()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_files_go_through_the_bucket_and_nothing_stays_there(
    transport, bucket, service, tmp_path, monkeypatch
):
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4000)
    transport.send(HOST, source, f"{tmp_path}/there/a b/file.bin")
    assert (tmp_path / "there/a b/file.bin").read_bytes() == source.read_bytes()
    (tmp_path / "there/status.json").write_text("{}")
    transport.fetch(HOST, f"{tmp_path}/there", tmp_path / "came")
    assert (tmp_path / "came/a b/file.bin").read_bytes() == source.read_bytes()
    assert (tmp_path / "came/status.json").exists()
    assert "Contents" not in bucket.list_objects_v2(Bucket="some-bucket")

    with monkeypatch.context() as small:
        small.setattr(ssm, "MAX_BYTES", 100_000)
        with pytest.raises(RunError, match=r"archive has .* bytes: too many"):
            transport.fetch(HOST, f"{tmp_path}/there", tmp_path / "more")
    assert not (tmp_path / "more").exists()
    with pytest.raises(RunError, match="/nothing/here cannot be read"):
        transport.fetch(HOST, "/nothing/here", tmp_path / "came")
    with pytest.raises(RunError, match="/proc/here/file cannot be written"):
        transport.send(HOST, source, "/proc/here/file")
    assert "Contents" not in bucket.list_objects_v2(Bucket="some-bucket")
    sent = "\n".join(service.requests)
    assert "s3://some-bucket/of/mine/" in sent
    for secret in ("sesame", "Signature", "X-Amz"):
        assert secret not in sent


def test_a_bucket_that_is_not_there_is_told(transport, bucket, tmp_path):
    source = tmp_path / "source"
    source.touch()
    other = SsmTransport("s3://no-such-bucket", user="root")
    with pytest.raises(RunError, match="NoSuchBucket"):
        other.send(HOST, source, f"{tmp_path}/file")
    other.close()


def test_a_gang_runs_by_run_command(transport, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\necho "$BYZSHIELD_GANG $*"\nexit 9\n')
    python.chmod(0o755)
    (tmp_path / "job.json").touch()
    one = Gang(
        f"ssm-{os.getpid()}",
        (HOST,),
        (2,),
        f"{tmp_path}/job.json",
        str(python),
        str(tmp_path),
        look_every_s=0.1,
    )
    end = run_gang(transport, one)
    assert (end.code, end.codes) == (9, {HOST.name: 9})
    assert f"ssm-{os.getpid()}/0 -m torch.distributed.run --nnodes 1" in end.output
