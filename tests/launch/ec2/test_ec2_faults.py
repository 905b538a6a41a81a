"""Faults at every step of a launch: nothing without a tag, and after ``down`` nothing runs."""

import errno
import multiprocessing
import os
import signal
import threading
from types import SimpleNamespace

import boto3
import ec2_cloud
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from byzshield_exp.commands.ec2 import main
from byzshield_exp.errors import RunError, Stopped
from byzshield_exp.launch.ec2 import cloud, commands, fleet, resources
from byzshield_exp.launch.ec2.cloud import connect
from byzshield_exp.launch.ec2.hosts import Ended, Host, Unreachable
from byzshield_exp.launch.ec2.state import store_of

pytestmark = pytest.mark.slow  # together they take minutes

UP = ("transport=local", "usd_per_hour=0.5", "dry_run=false", "retry_s=0", "max_attempts=2")
SHARED = ("efs=create", "instance_profile=worker")
_driver = multiprocessing.get_context("forkserver")
_driver.set_forkserver_preload(["boto3", "byzshield_exp.launch.ec2.commands"])


@pytest.fixture
def quick(aws, monkeypatch):
    """One set of clients for all commands in this process, and no waiting for moto to settle."""
    aws.client("iam").create_instance_profile(InstanceProfileName="worker")
    shared = connect("us-east-1")
    monkeypatch.setattr(commands, "connect", lambda region: shared)
    monkeypatch.setattr(resources, "_SETTLE_S", 0.0)
    return aws


def restart(aws, tmp_path, number) -> str:
    """Everything empty again; the place of a new fleet."""
    aws.reset()
    aws.client("iam").create_instance_profile(InstanceProfileName="worker")
    return f"output_dir={tmp_path / str(number)}"


def drive(environment: dict[str, str], arguments: list[str]) -> None:
    """In a process of its own: a command."""
    os.environ.update(environment)
    raise SystemExit(main(arguments))


def assert_all_tagged(aws) -> None:
    ec2 = aws.client("ec2")
    systems = aws.client("efs").describe_file_systems()["FileSystems"]
    volumes = ec2.describe_volumes()["Volumes"]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    groups = [one for one in groups if one["GroupName"] != "default"]
    for one in [*aws.living(), *volumes, *groups, *systems]:
        tags = {tag["Key"] for tag in one["Tags"]}
        assert tags & {"byzshield:fleet", "byzshield:shared"}, one


def assert_nothing_runs(aws) -> None:
    assert aws.living() == []
    groups = aws.client("ec2").describe_security_groups()["SecurityGroups"]
    left = [one["GroupName"] for one in groups]
    assert [name for name in left if not name.startswith("byzshield-shared")] == ["default"]
    assert aws.client("ec2").describe_volumes()["Volumes"] == []


def killed_at(aws, number: int, place: str, when: str) -> bool:
    """Start a fleet with a driver that is killed at a call; False if it made fewer."""
    environment = aws.environment()
    child = _driver.Process(target=drive, args=(environment, ["up", place, *UP, *SHARED]))

    def kill(call: ec2_cloud.Call) -> str | None:
        if call.number != number:
            return None
        os.kill(child.pid, signal.SIGKILL)
        return "drop"

    setattr(aws, when, kill)
    child.start()
    child.join(120)
    aws.before = aws.after = lambda call: None
    assert child.exitcode in (-signal.SIGKILL, 0)
    return child.exitcode != 0


def test_a_driver_killed_at_a_call_that_makes_instances(quick, tmp_path):
    """The most expensive ones: before and after the call got through."""
    place = restart(quick, tmp_path, "whole")
    assert main(["up", place, *UP, *SHARED]) == 0
    making = [call.number for call in quick.calls if call.action == "RunInstances" and call.creates]
    assert len(making) == 2
    for when in ("before", "after"):
        place = restart(quick, tmp_path, when)
        assert killed_at(quick, making[0], place, when)
        assert len(quick.living()) == (0 if when == "before" else 2)
        assert_all_tagged(quick)
        assert main(["down", place]) == 0
        assert_nothing_runs(quick)


THIRDS = [0, *(pytest.param(part, marks=pytest.mark.thorough) for part in (1, 2))]


@pytest.mark.parametrize(
    ("when", "end"), [pytest.param("before", "down", marks=pytest.mark.thorough), ("after", "up")]
)
@pytest.mark.parametrize("part", THIRDS)
def test_a_driver_killed_at_any_call(quick, tmp_path, when, end, part):
    """At each third call that changes something; then the fleet is ended, or brought up after all.

    Between two such calls nothing changes in the cloud, and what the driver has noted is the same
    before the second one.
    """
    place = restart(quick, tmp_path, "whole")
    assert main(["up", place, *UP, *SHARED]) == 0
    changing = [call.number for call in quick.calls if call.creates]
    assert len(changing) >= 10
    for number in changing[part::3]:
        place = restart(quick, tmp_path, number)
        assert killed_at(quick, number, place, when)
        assert_all_tagged(quick)
        store = store_of(place.partition("=")[2], "byzshield")
        if store.load() is None:  # nothing was noted, so nothing was made
            assert_nothing_runs(quick)
        elif end == "up":
            assert main(["up", place, *UP, *SHARED]) == 0
            assert len(quick.living()) == 3
            assert len(quick.client("efs").describe_file_systems()["FileSystems"]) == 1
        if store.load() is not None:
            assert main(["down", place]) == 0
            assert_nothing_runs(quick)


@pytest.mark.parametrize("part", THIRDS)
def test_an_error_at_any_call_ends_the_fleet(quick, tmp_path, part, capsys):
    """Each third call is refused once; the driver ends what it has made by then."""
    number, refused = part + 1, 0
    while True:
        place = restart(quick, tmp_path, number)
        quick.before = lambda call, number=number: (
            ec2_cloud.error_of("UnauthorizedOperation", 403) if call.number == number else None
        )
        code = main(["up", place, *UP, *SHARED])
        if code == 0 and len(quick.calls) < number:
            break
        refused += code != 0
        if code:
            assert_nothing_runs(quick)
            assert "Traceback" not in capsys.readouterr().err
        number += 3
    assert refused >= 9


def test_lost_answers_are_asked_for_again(quick, tmp_path):
    """Each call that makes or deletes something gets through, and its answer is lost once.

    Not TerminateInstances: EC2 takes it twice, moto does not.
    """
    lost = set()

    def lose(call: ec2_cloud.Call) -> str | None:
        key = (call.action, call.fields.get("GroupId"), call.fields.get("ClientToken"))
        changes = call.creates or call.action.startswith("Delete")
        if not changes or call.is_dry or key in lost:
            return None
        lost.add(key)
        return "drop"

    place = restart(quick, tmp_path, "lost")
    quick.after = lose
    assert main(["up", place, *UP, *SHARED]) == 0
    assert len(quick.living()) == 3
    assert len(quick.client("efs").describe_file_systems()["FileSystems"]) == 1
    assert main(["down", place, "efs=true"]) == 0
    assert_nothing_runs(quick)
    assert quick.client("efs").describe_file_systems()["FileSystems"] == []
    actions = {action for action, _, _ in lost}
    assert actions >= {
        "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupEgress",
        "AuthorizeSecurityGroupEgress", "RunInstances", "DeleteSecurityGroup",
    }  # fmt: skip
    assert any(action.endswith("mount-targets") for action in actions)


@pytest.mark.thorough
def test_a_little_throttling_is_waited_out(aws, tmp_path):
    slowed = set()

    def slow(call: ec2_cloud.Call) -> bytes | None:
        if call.service != "ec2" or call.action in slowed:
            return None
        slowed.add(call.action)
        return ec2_cloud.error_of("RequestLimitExceeded", 503)

    aws.before = slow
    assert main(["up", f"output_dir={tmp_path}", *UP]) == 0
    assert len(aws.living()) == 3
    assert slowed >= {"RunInstances", "DescribeInstances", "CreateSecurityGroup"}


@pytest.mark.thorough
def test_throttling_without_end_is_an_error_and_leaves_nothing(aws, tmp_path, capsys):
    aws.before = lambda call: (
        ec2_cloud.error_of("RequestLimitExceeded", 503)
        if call.action == "RunInstances" and call.creates
        else None
    )
    assert main(["up", f"output_dir={tmp_path}", *UP]) == 1
    assert "AWS: An error occurred (RequestLimitExceeded)" in capsys.readouterr().err
    assert_nothing_runs(aws)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestLimitExceeded", 503, cloud.NoAnswer),
        ("ThrottlingException", 400, cloud.NoAnswer),
        ("InternalError", 500, cloud.NoAnswer),
        ("InsufficientInstanceCapacity", 500, cloud.NoCapacity),
        ("UnauthorizedOperation", 403, RunError),
    ],
)
def test_what_may_be_different_later_is_told_apart(code, status, kind):
    said = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(RunError) as told, cloud.aws_errors():
        raise ClientError(said, "RunInstances")
    assert type(told.value) is kind


def test_an_instance_that_still_seems_to_start_is_waited_for(monkeypatch):
    """EC2 may show what was true a moment ago; moto never does."""
    shown = ["pending", "pending", "running", "shutting-down", "terminated", "unasked"]
    asked = []
    ec2 = SimpleNamespace(terminate_instances=lambda InstanceIds: asked.append(InstanceIds))
    monkeypatch.setattr(
        resources, "describe", lambda *_: {"i-1": {"State": {"Name": shown.pop(0)}}}
    )
    monkeypatch.setattr(resources, "_DELAY_S", 0.0)
    resources.terminate(cloud.Cloud(lambda *_: ec2, "us-east-1"), ["i-1"])
    assert (asked, shown) == ([["i-1"]], ["unasked"])


@pytest.mark.parametrize("role", ["workers", "server"])
def test_no_capacity_leaves_nothing(quick, tmp_path, capsys, role):
    count = {"workers": "2", "server": "1"}[role]
    quick.before = lambda call: (
        ec2_cloud.error_of("InsufficientInstanceCapacity", 500)
        if call.action == "RunInstances" and call.creates and call.fields["MinCount"] == count
        else None
    )
    assert main(["up", f"output_dir={tmp_path}", *UP]) == 1
    assert "InsufficientInstanceCapacity" in capsys.readouterr().err
    assert_nothing_runs(quick)


def test_a_failed_end_says_how_to_end(quick, tmp_path, capsys):
    place = restart(quick, tmp_path, "end")

    def refuse(call: ec2_cloud.Call) -> bytes | None:
        late = any(one.action == "RunInstances" and one.creates for one in quick.calls)
        return ec2_cloud.error_of("UnauthorizedOperation", 403) if late else None

    quick.after = refuse
    assert main(["up", place, *UP]) == 1
    assert f"may still run: byzshield ec2 down name=byzshield {place}" in (capsys.readouterr().err)
    quick.after = lambda call: None
    assert len(quick.living()) == 2
    assert main(["down", place]) == 0
    assert_nothing_runs(quick)


def test_a_full_disk_does_not_prevent_the_end(quick, tmp_path, capsys, monkeypatch):
    place = restart(quick, tmp_path, "full")
    assert main(["up", place, *UP]) == 0

    def refuse(path, content) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("byzshield_exp.launch.ec2.state.write_atomically", refuse)
        assert main(["down", place]) == 0
    assert "state.json cannot be written: [Errno 28]" in capsys.readouterr().err
    assert_nothing_runs(quick)
    assert main(["down", place]) == 0
    assert store_of(place.partition("=")[2], "byzshield").load().phase == "down"


def test_a_gang_that_does_not_end_keeps_no_other_up(quick, tmp_path, capsys):
    place = restart(quick, tmp_path, "slow")
    assert main(["up", place, *UP, "gangs=2"]) == 0
    first = store_of(place.partition("=")[2], "byzshield").load().gangs[0].instances

    def refuse(call: ec2_cloud.Call) -> bytes | None:  # looking for this gang alone
        asked = {value for key, value in call.fields.items() if key.startswith("Filter.1.Value.")}
        is_it = call.action == "DescribeInstances" and asked == set(first)
        return ec2_cloud.error_of("UnauthorizedOperation", 403) if is_it else None

    quick.before = refuse
    assert main(["down", place]) == 1
    assert "UnauthorizedOperation" in capsys.readouterr().err
    assert_nothing_runs(quick)
    assert store_of(place.partition("=")[2], "byzshield").load().phase == "up"
    quick.before = lambda call: None
    assert main(["down", place]) == 0


@pytest.fixture
def hasty(quick, monkeypatch):
    """The driver's clients ask once, and ask again soon."""
    monkeypatch.setattr(cloud, "_RETRY_S", 0.1)
    for key, value in quick.environment().items():
        monkeypatch.setenv(key, value)
    once = Config(retries={"total_max_attempts": 1})
    session = boto3.session.Session()
    clients = cloud.Cloud(
        lambda name, region: session.client(name, region_name=region, config=once), "us-east-1"
    )
    monkeypatch.setattr(commands, "connect", lambda region: clients)
    return quick


def test_an_end_waits_for_the_network(hasty, tmp_path, capsys):
    place = restart(hasty, tmp_path, "away")
    assert main(["up", place, *UP]) == 0
    dropped = []

    def drop(call: ec2_cloud.Call) -> str | None:
        if dropped.count(call.action) >= 2:
            return None
        dropped.append(call.action)
        return "drop"

    hasty.before = drop
    assert main(["down", place]) == 0
    assert dropped.count("TerminateInstances") == 2
    assert "it is asked again" in capsys.readouterr().err
    assert_nothing_runs(hasty)


def test_an_end_does_not_wait_for_ever(hasty, tmp_path, capsys, monkeypatch):
    place = restart(hasty, tmp_path, "gone")
    assert main(["up", place, *UP]) == 0
    monkeypatch.setattr(cloud, "OUTAGE_S", 0.3)
    hasty.before = lambda call: "drop"
    assert main(["down", place]) == 1
    assert "AWS: Connection was closed" in capsys.readouterr().err
    hasty.before = lambda call: None
    assert main(["down", place]) == 0
    assert_nothing_runs(hasty)


def test_a_watch_bears_a_network_that_is_away_for_minutes(hasty, tmp_path, monkeypatch):
    place = restart(hasty, tmp_path, "watch")
    assert main(["up", place, *UP]) == 0
    monkeypatch.setattr(fleet, "WATCH_S", 0.0)
    store = store_of(place.partition("=")[2], "byzshield")
    control = resources.Control(store.load(), store, commands.connect(None))
    transport = fleet.bring_up(control, control.state.gangs[0], threading.Event())
    hasty.before = lambda call: "drop"
    transport.check()
    monkeypatch.setattr(fleet, "OUTAGE_S", 0.0)
    with pytest.raises(cloud.NoAnswer):
        transport.check()


def test_waiting_for_instances_hears_the_end(quick, tmp_path, monkeypatch):
    place = restart(quick, tmp_path, "hears")
    assert main(["up", place, *UP]) == 0
    store = store_of(place.partition("=")[2], "byzshield")
    control = resources.Control(store.load(), store, commands.connect(None))
    hold, stop = threading.Event(), threading.Event()
    monkeypatch.setattr(fleet, "wait_running", lambda control, names: hold.wait(250))
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Stopped):
        fleet.bring_up(control, control.state.gangs[0], stop)
    hold.set()


class Slow:
    """Hosts that do not get done with anything before ``done`` is set."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def run(self, host, script, timeout_s):
        self.done.wait(250)
        return Ended(0, "")

    send = fetch = run

    def close(self) -> None:
        pass


@pytest.mark.parametrize("use", ["run", "send", "fetch"])
def test_what_takes_long_on_a_host_hears_the_end(use, tmp_path):
    slow, asked = Slow(), []

    def check() -> None:
        asked.append(use)
        if len(asked) > 1:
            raise Stopped("stopped")

    given = {"run": ("true", 60.0), "send": (tmp_path, "there"), "fetch": ("there", tmp_path)}[use]
    with pytest.raises(Stopped):
        getattr(fleet.Watched(slow, check), use)(Host("one", "127.0.0.1", "one", 0), *given)
    slow.done.set()


def test_the_last_fetch_does_not_take_long(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "LAST_FETCH_S", 0.1)
    slow = Slow()
    watched = fleet.Watched(slow, lambda: pytest.fail("it asks"))
    with pytest.raises(Unreachable, match="in time"):
        watched.fetch_at_last(Host("one", "127.0.0.1", "one", 0), "this", tmp_path)
    slow.done.set()


def test_sigterm_ends_the_fleet(quick, tmp_path):
    place = restart(quick, tmp_path, "term")
    child = _driver.Process(target=drive, args=(quick.environment(), ["up", place, *UP]))

    def ask(call: ec2_cloud.Call) -> None:
        if call.action == "RunInstances" and call.creates:
            os.kill(child.pid, signal.SIGTERM)

    quick.after = ask
    child.start()
    child.join(120)
    assert child.exitcode == 75
    assert_nothing_runs(quick)
    assert main(["down", place]) == 0


def test_an_unreadable_state_is_named(quick, tmp_path, capsys):
    place = restart(quick, tmp_path, "state")
    folder = tmp_path / "state/ec2/byzshield"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"format": 1, "fleet"')
    assert main(["down", place]) == 1
    assert "state.json cannot be read" in capsys.readouterr().err
