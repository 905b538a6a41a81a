"""What belongs to whom in an account; the groups that instances join for a shared folder."""

import pytest

from byzshield_exp.commands.ec2 import main

pytestmark = pytest.mark.slow  # together they take minutes

UP = ("transport=local", "usd_per_hour=0.5", "dry_run=false", "instance_profile=worker")


@pytest.fixture
def command(aws, tmp_path, capsys, monkeypatch):
    """``command(name, place, *options) -> (exit code, out, err)``."""
    aws.client("iam").create_instance_profile(InstanceProfileName="worker")
    monkeypatch.setattr("byzshield_exp.launch.ec2.resources._SETTLE_S", 0.0)

    def call(name: str, place: str, *options: str) -> tuple[int, str, str]:
        code = main([name, f"output_dir={tmp_path / place}", *options])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def mounted(aws):
    """``mounted(groups) -> id`` of a file system of the user's with those groups."""

    def make(*rules: tuple[str, str]) -> str:
        ec2, efs = aws.client("ec2"), aws.client("efs")
        subnet = min(ec2.describe_subnets()["Subnets"], key=lambda one: one["AvailabilityZone"])
        names = []
        for number, (inbound, outbound) in enumerate(rules):
            made = ec2.create_security_group(
                GroupName=f"nfs-{number}", Description="nfs", VpcId=subnet["VpcId"]
            )
            names.append(made["GroupId"])
            (there,) = ec2.describe_security_groups(GroupIds=names[-1:])["SecurityGroups"]
            ec2.revoke_security_group_egress(
                GroupId=names[-1], IpPermissions=there["IpPermissionsEgress"]
            )
            nfs = {"IpProtocol": "tcp", "FromPort": 2049, "ToPort": 2049}
            for way, network in (("ingress", inbound), ("egress", outbound)):
                key, peer = ("Ipv6Ranges", "CidrIpv6") if ":" in network else ("IpRanges", "CidrIp")
                rule = nfs | {key: [{peer: network}]}
                getattr(ec2, f"authorize_security_group_{way}")(
                    GroupId=names[-1], IpPermissions=[rule]
                )
        system = efs.create_file_system(CreationToken="mine")["FileSystemId"]
        efs.create_mount_target(
            FileSystemId=system, SubnetId=subnet["SubnetId"], SecurityGroups=names[::-1]
        )
        return str(system)

    return make


def systems(aws) -> list[str]:
    found = aws.client("efs").describe_file_systems()["FileSystems"]
    return [one["FileSystemId"] for one in found]


def test_another_users_folder_of_the_same_name_is_not_deleted(aws, command):
    for owner in ("ada", "bob"):
        assert command("up", owner, *UP, "efs=create", f"owner={owner}")[0] == 0
    assert len(systems(aws)) == 2
    code, out, _ = command("down", "bob", "efs=true")
    assert code == 0
    assert "stays, and costs" not in out
    (left,) = aws.client("efs").describe_file_systems()["FileSystems"]
    assert {"Key": "byzshield:owner", "Value": "ada"} in left["Tags"]
    assert len(aws.living()) == 3
    said = f"the shared folder {left['FileSystemId']} stays, and costs; down efs=true deletes it"
    assert said in command("down", "ada")[1]
    assert command("down", "ada", "efs=true")[0] == 0
    assert systems(aws) == []


def test_a_folder_that_another_fleet_uses_is_not_deleted(aws, command):
    for place in ("one", "two"):
        assert command("up", place, *UP, "efs=create")[0] == 0
    (system,) = systems(aws)
    code, _, err = command("down", "one", "efs=true")
    assert code == 1
    assert "the shared folder is used by i-" in err
    assert systems(aws) == [system]
    assert len(aws.living()) == 3
    assert command("down", "two", "efs=true")[0] == 0
    assert systems(aws) == []


@pytest.mark.parametrize(
    ("rules", "https_to", "message"),
    [
        ([("0.0.0.0/1", "10.0.0.0/8")], "0.0.0.0/0", "is open to the world"),
        ([("::/0", "10.0.0.0/8")], "0.0.0.0/0", "is open to the world"),
        ([("10.0.0.0/8", "0.0.0.0/0")], "172.16.0.0/12", "lets its members out to more"),
        ([("10.0.0.0/8", "10.0.0.0/8")] * 5, "0.0.0.0/0", "its mount target has 5 groups"),
    ],
)
def test_groups_that_cannot_be_joined_are_refused_by_the_plan(
    aws, command, mounted, rules, https_to, message
):
    system = mounted(*rules)
    code, _, err = command("plan", "one", *UP, f"efs={system}", f"https_to={https_to}")
    assert code == 2
    assert message in err
    assert command("up", "one", *UP, f"efs={system}", f"https_to={https_to}")[0] == 2
    assert not [call for call in aws.calls if call.action == "CreateSecurityGroup" and call.creates]


def test_groups_are_joined_in_the_same_order_whatever_order_they_come_in(aws, command, mounted):
    system = mounted(*[("10.0.0.0/8", "0.0.0.0/0")] * 3)
    assert command("up", "one", *UP, f"efs={system}")[0] == 0
    call = next(call for call in aws.calls if call.action == "RunInstances" and call.creates)
    groups = [call.fields[f"NetworkInterface.1.SecurityGroupId.{number}"] for number in (2, 3, 4)]
    assert groups == sorted(groups)


def test_list_and_gc_are_about_ones_own_fleets(aws, command, monkeypatch, capsys):
    for place, more in (("mine", ()), ("hers", ("owner=ada",))):
        assert command("up", place, *UP, *more)[0] == 0
    monkeypatch.setattr("byzshield_exp.launch.ec2.commands._now", lambda: "2999-01-01T00:00:00Z")

    def said(*arguments: str) -> str:
        capsys.readouterr()
        assert main([*arguments]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    assert said("list") == said("list", "owner=ada") == "3 instances"
    assert said("list", "everybody=true") == "6 instances"
    assert said("gc", "everybody=true").startswith("6 instances and 2 security groups would be")
    assert said("gc", "owner=ada").startswith("3 instances and 1 security groups would be")
    assert said("gc", "dry_run=false") == "3 instances and 1 security groups removed"
    left = {tag["Value"] for one in aws.living() for tag in one["Tags"] if "owner" in tag["Key"]}
    assert left == {"ada"}
    assert said("gc", "everybody=true", "dry_run=false").startswith("3 instances and 1")
    assert aws.living() == []
