"""Amazon's answers for the tests: moto's server, and between it and a driver a line with faults."""

import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

SECRET = "NeverToBePrintedAnywhere0123456789"

# It takes a port that is free, says which, and ends when this process does.
_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""

Fault = Callable[["Call"], "bytes | str | None"]


@dataclass
class Call:
    """A call that a driver makes.

    Attributes:
        number: from 1.
        action: ``RunInstances``.
        service: ``ec2``.
        fields: of EC2's form; empty for other services.
    """

    number: int
    action: str
    service: str
    fields: dict[str, str]

    @property
    def is_dry(self) -> bool:
        return self.fields.get("DryRun") == "true"

    @property
    def creates(self) -> bool:
        verbs = ("Run", "Create", "Authorize", "Revoke")
        return self.action.startswith(verbs) and not self.is_dry


def error_of(code: str, status: int = 400) -> bytes:
    """An answer of EC2 that is an error."""
    text = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>as the test wants</Message></Error>"
        "</Errors><RequestID>0</RequestID></Response>"
    )
    return f"{status}\n{text}".encode()


@dataclass
class Cloud:
    """A line to moto's server.

    Attributes:
        moto: its port.
        calls: all calls since ``reset``.
        before: asked before a call gets through: None, an error instead, or ``"drop"``.
        after: asked when the answer is there, likewise.
    """

    moto: int
    calls: list[Call] = field(default_factory=list)
    before: Fault = lambda call: None
    after: Fault = lambda call: None
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        self.before = self.after = lambda call: None
        self.ask("POST", "/moto-api/reset", b"", {})
        self.calls.clear()
        self.answers.clear()

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]):
        connection = http.client.HTTPConnection("127.0.0.1", self.moto, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def inventory(self) -> dict[str, list[str]]:
        """Everything that a driver could leave, and how it is."""
        ec2, efs = self.client("ec2"), self.client("efs")
        instances = [
            f"{one['InstanceId']} {one['State']['Name']}"
            for reservation in ec2.describe_instances()["Reservations"]
            for one in reservation["Instances"]
        ]
        lists = {
            "volumes": (ec2.describe_volumes()["Volumes"], "VolumeId"),
            "groups": (ec2.describe_security_groups()["SecurityGroups"], "GroupId"),
            "interfaces": (
                ec2.describe_network_interfaces()["NetworkInterfaces"],
                "NetworkInterfaceId",
            ),
            "spot": (
                ec2.describe_spot_instance_requests()["SpotInstanceRequests"],
                "SpotInstanceRequestId",
            ),
            "keys": (ec2.describe_key_pairs()["KeyPairs"], "KeyName"),
            "templates": (ec2.describe_launch_templates()["LaunchTemplates"], "LaunchTemplateId"),
            "addresses": (ec2.describe_addresses()["Addresses"], "PublicIp"),
            "subnets": (ec2.describe_subnets()["Subnets"], "SubnetId"),
            "shared": (efs.describe_file_systems()["FileSystems"], "FileSystemId"),
        }
        found = {name: sorted(one[key] for one in many) for name, (many, key) in lists.items()}
        return {"instances": sorted(instances), **found}

    def living(self) -> list[dict]:
        """The instances that cost something."""
        pages = self.client("ec2").get_paginator("describe_instances").paginate()
        return [
            one
            for page in pages
            for reservation in page["Reservations"]
            for one in reservation["Instances"]
            if one["State"]["Name"] not in ("terminated", "shutting-down")
        ]

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, service: str):
        """A client past the line, for the test itself."""
        import boto3

        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{self.moto}",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )


@contextmanager
def running_cloud():
    """Moto's server in a process of its own, with a line to it."""
    environment = {**os.environ, "MOTO_EC2_LOAD_DEFAULT_AMIS": "true"}
    server = subprocess.Popen(
        [sys.executable, "-c", _MOTO], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    cloud = Cloud(int(server.stdout.readline()))
    line = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cloud))
    line.daemon_threads = True
    cloud.port = line.server_address[1]
    thread = threading.Thread(target=line.serve_forever, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        line.shutdown()
        line.server_close()
        server.kill()  # it has nothing to lose, and may wait for connections otherwise
        server.communicate(timeout=30)


def _handler(cloud: Cloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = _call(cloud, self, body)
            verdict = cloud.before(call)
            if verdict is None:
                status, content, headers = self._through(call, body)
                verdict = cloud.after(call)
            if verdict == "drop":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(verdict, bytes):
                first, _, content = verdict.partition(b"\n")
                status, headers = int(first), {"Content-Type": "text/xml"}
            try:
                self._answer(status, content, headers)
            except OSError:
                self.close_connection = True  # the driver is gone

        do_GET = do_PUT = do_DELETE = do_HEAD = do_POST

        def _through(self, call: Call, body: bytes):
            """EC2 answers the same call with the same token as it did before; moto does not."""
            token = call.fields.get("ClientToken") if call.action == "RunInstances" else None
            with cloud.lock:
                if token in cloud.answers and not call.is_dry:
                    return *cloud.answers[token], {"Content-Type": "text/xml"}
                headers = {key: value for key, value in self.headers.items() if key != "Host"}
                headers["Host"] = self.headers["Host"]
                status, content, headers = cloud.ask(self.command, self.path, body, headers)
                if token is not None and status == 200:
                    cloud.answers[token] = (status, content)
                return status, content, headers

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                if key.lower() not in ("content-length", "connection", "date", "server"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _call(cloud: Cloud, handler: BaseHTTPRequestHandler, body: bytes) -> Call:
    target = handler.headers.get("X-Amz-Target")
    kind = handler.headers.get("Content-Type", "")
    scope = handler.headers.get("Authorization", "").split("/")
    service = scope[3] if len(scope) > 3 else ""
    fields: dict[str, str] = {}
    if target:
        action = target.rpartition(".")[2]
    elif "x-www-form-urlencoded" in kind:
        fields = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        action = fields.get("Action", "")
    else:
        verb = {"POST": "Create", "PUT": "Create", "DELETE": "Delete"}.get(handler.command, "Get")
        action = f"{verb} {handler.path.partition('?')[0]}"
    with cloud.lock:
        call = Call(len(cloud.calls) + 1, action, service, fields)
        cloud.calls.append(call)
    return call


def only(**services):
    """The clients of a driver, of which just these are there."""
    from byzshield_exp.launch.ec2 import cloud

    return cloud.Cloud(lambda name, region: services.get(name), "us-east-1")
