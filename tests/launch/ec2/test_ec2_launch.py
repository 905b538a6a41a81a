"""A fleet on moto's server: exactly what was planned, closed, tagged, once, and gone again."""

import base64
import json

import pytest
from ec2_cloud import SECRET

from byzshield_exp.commands.ec2 import main
from byzshield_exp.launch.ec2 import requests
from byzshield_exp.launch.ec2.state import store_of

pytestmark = pytest.mark.slow  # together they take minutes

UP = ("transport=local", "usd_per_hour=0.5", "dry_run=false")
COMMON = {"byzshield:fleet", "byzshield:name", "byzshield:owner", "byzshield:expires"}


@pytest.fixture
def command(aws, tmp_path, capsys):
    """``command(name, *options) -> (exit code, out, err)``, always of the same fleet."""

    def call(name: str, *options: str) -> tuple[int, str, str]:
        place = () if name in ("list", "gc") else (f"output_dir={tmp_path / 'outputs'}",)
        code = main([name, *place, *options])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def state(tmp_path):
    return lambda: store_of(str(tmp_path / "outputs"), "byzshield").load()


def tags_of(one) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in one["Tags"]}


def difference(before, after) -> dict[str, int]:
    return {name: len(set(after[name]) - set(before[name])) for name in after}


def test_up_makes_what_was_planned_and_nothing_else(aws, command, state):
    before = aws.inventory()
    code, out, err = command("up", *UP, "workers=3", "server_type=c7i.2xlarge")
    assert code == 0, err
    made = difference(before, aws.inventory())
    expected = {"instances": 4, "volumes": 4, "groups": 1, "interfaces": 4}
    assert {name: number for name, number in made.items() if number} == expected
    kinds = sorted((one["InstanceType"], one["AmiLaunchIndex"]) for one in aws.living())
    assert kinds == [("c7i.2xlarge", 0), ("c7i.xlarge", 0), ("c7i.xlarge", 1), ("c7i.xlarge", 2)]
    assert len([call for call in aws.calls if call.action == "RunInstances" and call.creates]) == 2
    assert "i-" in out
    assert out.count("gang 0 node") == 4
    server = next(one for one in aws.living() if one["InstanceType"] == "c7i.2xlarge")
    assert f"gang 0 node 0  {server['InstanceId']}" in out


def test_each_instance_is_closed_encrypted_and_ends_for_good(aws, command, state):
    assert command("up", *UP)[0] == 0
    ec2 = aws.client("ec2")
    for one in aws.living():
        assert one["MetadataOptions"]["HttpTokens"] == "required"
        assert one["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert one["InstanceLifecycle"] == "spot"
        name = one["InstanceId"]
        shutdown = ec2.describe_instance_attribute(
            InstanceId=name, Attribute="instanceInitiatedShutdownBehavior"
        )
        assert shutdown["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
        groups = [group["GroupId"] for group in one["NetworkInterfaces"][0]["Groups"]]
        assert groups == [state().group]
        assert one.get("KeyName") is None
    volumes = ec2.describe_volumes()["Volumes"]
    assert {(one["Encrypted"], one["VolumeType"], one["Size"]) for one in volumes} == {
        (True, "gp3", 40)
    }
    call = next(call for call in aws.calls if call.action == "RunInstances" and call.creates)
    assert call.fields["BlockDeviceMapping.1.DeviceName"] == "/dev/xvda"
    assert call.fields["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
    text = base64.b64decode(call.fields["UserData"]).decode()
    assert text.splitlines()[1].startswith("shutdown -h +120 ")
    assert call.fields["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert "InstanceMarketOptions.SpotOptions.MaxPrice" not in call.fields


def test_everything_has_its_tags_from_the_call_that_makes_it(aws, command, state):
    assert command("up", *UP, "owner=ada")[0] == 0
    ec2, fleet = aws.client("ec2"), state().fleet
    (group,) = ec2.describe_security_groups(GroupIds=[state().group])["SecurityGroups"]
    rules = ec2.describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [group["GroupId"]]}]
    )["SecurityGroupRules"]
    made = [*aws.living(), *ec2.describe_volumes()["Volumes"], group, *rules]
    assert len(made) == 3 + 3 + 1 + 3
    for one in made:
        tags = tags_of(one)
        assert set(tags) >= COMMON
        assert tags["byzshield:fleet"] == fleet
        assert tags["byzshield:owner"] == "ada"
    assert not [call for call in aws.calls if call.action == "CreateTags"]
    for call in aws.calls:
        if call.action == "RunInstances" and call.creates:
            kinds = {
                value
                for key, value in call.fields.items()
                if key.startswith("TagSpecification.") and key.endswith(".ResourceType")
            }
            expected = {"instance", "volume", "network-interface", "spot-instances-request"}
            assert kinds == expected


def test_the_security_group_rule_by_rule(aws, command, state):
    assert command("up", *UP)[0] == 0
    group = state().group
    (there,) = aws.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
    (inbound,) = there["IpPermissions"]
    assert inbound["IpProtocol"] == "-1"
    assert [pair["GroupId"] for pair in inbound["UserIdGroupPairs"]] == [group]
    assert inbound["IpRanges"] == inbound["Ipv6Ranges"] == inbound["PrefixListIds"] == []
    others, https = sorted(there["IpPermissionsEgress"], key=lambda rule: rule["IpProtocol"])
    assert others["IpProtocol"] == "-1"
    assert [pair["GroupId"] for pair in others["UserIdGroupPairs"]] == [group]
    assert others["IpRanges"] == others["Ipv6Ranges"] == []
    assert (https["IpProtocol"], https["FromPort"], https["ToPort"]) == ("tcp", 443, 443)
    assert [peer["CidrIp"] for peer in https["IpRanges"]] == ["0.0.0.0/0"]
    assert https["UserIdGroupPairs"] == https["Ipv6Ranges"] == []


def test_ssh_opens_its_port_to_one_address(aws, command, state, tmp_path):
    """Waiting for the hosts is cut short: moto's instances have no ssh."""
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEarly ada@desk\n")
    wheel = tmp_path / "byzshield_exp-0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    seen = []
    aws.before = lambda call: (
        seen.append(aws.client("ec2").describe_security_groups())
        if (call.action == "RunInstances" and call.creates)
        else None
    )
    options = ("ssh_from=203.0.113.7/32", f"ssh_key={tmp_path / 'key'}", f"wheel={wheel}")
    code, _, err = command(
        "up", "transport=ssh", *UP[1:], *options, "boot_minutes=0.001", "max_attempts=1"
    )
    assert code == 1
    assert "printed no host keys on its console" in err
    (group,) = [one for one in seen[0]["SecurityGroups"] if one["GroupName"] == state().fleet]
    ssh = [rule for rule in group["IpPermissions"] if rule["IpProtocol"] == "tcp"]
    assert [(rule["FromPort"], rule["ToPort"], rule["IpRanges"]) for rule in ssh] == [
        (22, 22, [{"CidrIp": "203.0.113.7/32"}])
    ]
    assert len(group["IpPermissions"]) == 2
    assert not aws.living()


def test_down_leaves_nothing(aws, command):
    before = aws.inventory()
    assert command("up", *UP)[0] == 0
    code, out, _ = command("down")
    assert code == 0
    assert "is down, about 0.00 USD spent" in out
    assert not aws.living()
    after = aws.inventory()
    assert {name: after[name] for name in after if name != "instances"} == {
        name: before[name] for name in before if name != "instances"
    }
    assert command("down")[0] == 0  # again


def test_a_second_up_makes_nothing_more(aws, command, state):
    assert command("up", *UP)[0] == 0
    before = aws.inventory()
    code, out, _ = command("up", *UP)
    assert code == 0
    assert f"taking up {state().fleet}" in out
    assert aws.inventory() == before


def test_the_same_token_again_does_not_double_the_fleet(aws, command, state, tmp_path):
    """As after a driver that died between the answer and its note."""
    assert command("up", *UP)[0] == 0
    store = store_of(str(tmp_path / "outputs"), "byzshield")
    fleet = store.load()
    tokens = [part.token for part in fleet.gangs[0].parts]
    for part in fleet.gangs[0].parts:
        part.instances, part.sent = [], part.role == "server"  # found by tag, or asked again
    fleet.gangs[0].phase = "launching"
    store.save(fleet)
    before = aws.inventory()
    assert command("up", *UP)[0] == 0
    assert aws.inventory() == before
    assert [part.token for part in state().gangs[0].parts] == tokens
    assert len(state().gangs[0].instances) == 3


def test_the_token_counts_where_the_tag_is_not_seen_yet(aws, command, state, tmp_path, monkeypatch):
    """EC2 shows new instances a little late; the call is made again, and EC2 knows its token."""
    monkeypatch.setattr("byzshield_exp.launch.ec2.resources._SETTLE_S", 0.0)
    assert command("up", *UP)[0] == 0
    store = store_of(str(tmp_path / "outputs"), "byzshield")
    fleet = store.load()
    for part in fleet.gangs[0].parts:
        part.instances = []
    fleet.gangs[0].phase = "launching"
    store.save(fleet)
    nothing = (
        b'200\n<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        b"<reservationSet/></DescribeInstancesResponse>"
    )
    aws.before = lambda call: (
        nothing if call.fields.get("Filter.1.Name") == "tag:byzshield:part" else None
    )
    before, count = aws.inventory(), len(aws.calls)
    assert command("up", *UP)[0] == 0
    again = [call for call in aws.calls[count:] if call.action == "RunInstances"]
    assert [call.is_dry for call in again] == [False, False]
    assert aws.inventory() == before
    assert len(state().gangs[0].instances) == 3


def test_other_options_for_a_fleet_that_is_up_are_refused(aws, command):
    assert command("up", *UP)[0] == 0
    code, _, err = command("up", *UP, "workers=1")
    assert code == 2
    assert "workers=1: byzshield-" in err
    assert "is up with workers=2; end it with down" in err


def test_two_drivers_do_not_work_on_one_fleet(aws, command, tmp_path):
    import subprocess
    import sys

    folder = tmp_path / "outputs/ec2/byzshield"
    folder.mkdir(parents=True)
    hold = (
        "import fcntl,sys;f=open(sys.argv[1],'a');fcntl.lockf(f,2);print('held',flush=True);input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(folder / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        code, _, err = command("up", *UP)
        other.communicate("\n")
    assert code == 1
    assert "another driver works on this fleet" in err
    assert not aws.living()


def test_a_shared_folder_is_made_once_encrypted_and_stays(aws, command, state):
    aws.client("iam").create_instance_profile(InstanceProfileName="worker")
    options = (*UP, "efs=create", "instance_profile=worker")
    assert command("up", *options)[0] == 0
    efs, ec2 = aws.client("efs"), aws.client("ec2")
    (system,) = efs.describe_file_systems()["FileSystems"]
    assert system["Encrypted"]
    assert tags_of(system)["byzshield:shared"].startswith("byzshield-")
    (target,) = efs.describe_mount_targets(FileSystemId=system["FileSystemId"])["MountTargets"]
    (group,) = efs.describe_mount_target_security_groups(MountTargetId=target["MountTargetId"])[
        "SecurityGroups"
    ]
    (there,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    for way in ("IpPermissions", "IpPermissionsEgress"):
        (rule,) = there[way]
        assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 2049, 2049)
        assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group]
        assert rule["IpRanges"] == rule["Ipv6Ranges"] == []
    for one in aws.living():
        groups = {member["GroupId"] for member in one["NetworkInterfaces"][0]["Groups"]}
        assert groups == {state().group, group}
    assert command("down")[0] == 0
    assert [one["FileSystemId"] for one in efs.describe_file_systems()["FileSystems"]] == [
        system["FileSystemId"]
    ]
    assert command("up", *options)[0] == 0  # the same folder again
    assert state().efs == system["FileSystemId"]
    assert command("down", "efs=true")[0] == 0
    assert efs.describe_file_systems()["FileSystems"] == []
    assert [one["GroupName"] for one in ec2.describe_security_groups()["SecurityGroups"]] == [
        "default"
    ]


def test_a_shared_folder_that_is_open_to_the_world_is_not_joined(aws, command):
    aws.client("iam").create_instance_profile(InstanceProfileName="worker")
    ec2, efs = aws.client("ec2"), aws.client("efs")
    subnet = min(ec2.describe_subnets()["Subnets"], key=lambda one: one["AvailabilityZone"])
    group = ec2.create_security_group(GroupName="nfs", Description="nfs", VpcId=subnet["VpcId"])
    world = {"IpProtocol": "tcp", "FromPort": 2049, "ToPort": 2049}
    ec2.authorize_security_group_ingress(
        GroupId=group["GroupId"], IpPermissions=[{**world, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )
    system = efs.create_file_system(CreationToken="mine")["FileSystemId"]
    options = (*UP, f"efs={system}", "instance_profile=worker")
    code, _, err = command("up", *options)
    assert code == 2
    assert f"efs={system} has no mount target in us-east-1a" in err
    efs.create_mount_target(
        FileSystemId=system, SubnetId=subnet["SubnetId"], SecurityGroups=[group["GroupId"]]
    )
    code, _, err = command("up", *options)
    assert code == 2
    assert f"its group {group['GroupId']} is open to the world" in err
    assert not aws.living()


def test_gc_ends_fleets_whose_time_is_over(aws, command, tmp_path, monkeypatch):
    assert command("up", *UP)[0] == 0
    (tmp_path / "outputs/ec2/byzshield/state.json").unlink()  # the driver's disk is lost
    assert "0 instances and 0 security groups removed" in command("gc", "dry_run=false")[1]
    assert len(aws.living()) == 3
    monkeypatch.setattr("byzshield_exp.launch.ec2.commands._now", lambda: "2999-01-01T00:00:00Z")
    assert "3 instances and 1 security groups would be removed" in command("gc")[1]
    assert len(aws.living()) == 3
    assert "3 instances and 1 security groups removed" in command("gc", "dry_run=false")[1]
    assert not aws.living()


def test_gc_ends_a_fleet_by_its_name(aws, command, state):
    assert command("up", *UP)[0] == 0
    assert "0 instances and 0" in command("gc", "fleet=other-12345678", "dry_run=false")[1]
    assert len(aws.living()) == 3
    _code, out, _ = command("gc", f"fleet={state().fleet}", "dry_run=false")
    assert "3 instances and 1 security groups removed" in out
    assert not aws.living()


def test_list_hosts_run_status_and_tunnel(aws, command, state):
    assert command("up", *UP)[0] == 0
    names = state().gangs[0].instances
    assert all(name in command("list")[1] for name in names)
    assert all(name in command("hosts")[1] for name in names)
    code, out, _ = command("run", "--", "echo $((6 * 7)); exit 3")
    assert code == 3
    assert out.count("exit code 3\n42\n") == 3
    out = command("status")[1]
    assert "up, about 0.00 of 5 USD spent, 2.0 of 2 hours left" in out
    assert "gang 0: ready" in out
    assert "-- 'setsid nohup" in command("tunnel")[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("fly",), "unknown command fly, there are plan, up"),
        (("up", "workers"), "workers: arguments are key=value"),
        (("up", "workers=1", "workers=2"), "workers=2: workers is given twice"),
        (("up", "workers=[1"), "workers=[1: the value cannot be read"),
        (("down", "workers=2"), "down: unknown key workers, there are name, output_dir, efs"),
        (("down", "efs=yes please"), "efs=yes please must be true or false"),
        (("status", "output_dir=/nowhere"), "no such fleet"),
        (("run", "--"), "run: the command comes after --"),
    ],
)
def test_commands_that_cannot_be(aws, capsys, arguments, line):
    assert main(list(arguments)) == 2
    assert line in capsys.readouterr().err


def test_no_secret_is_written_or_said(aws, command, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{SECRET}-token")
    said = "".join("".join(command(name, *UP)[1:]) for name in ("plan", "up"))
    for name in ("hosts", "tunnel", "status", "down"):
        said += "".join(command(name)[1:])
    assert SECRET not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "state.json" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert not [call for call in aws.calls if SECRET in json.dumps(call.fields)]


def test_rules_are_read_as_they_are_written():
    rules = {("-1", -1, -1, "sg-1"), ("tcp", 443, 443, "0.0.0.0/0"), ("tcp", 22, 22, "1.2.3.4/32")}
    assert requests.rules_of([requests.permission(rule) for rule in rules]) == rules
    both = [{"IpProtocol": "-1", "IpRanges": [], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]
    assert requests.rules_of(both) == {("-1", -1, -1, "::/0")}
