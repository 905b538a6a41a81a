"""The plan of a fleet: what it refuses, what it prints, and that it creates nothing."""

import dataclasses
import json
from datetime import UTC, datetime

import ec2_cloud
import pytest

from byzshield_exp.commands.ec2 import main
from byzshield_exp.errors import ConfigError
from byzshield_exp.launch.ec2 import requests
from byzshield_exp.launch.ec2.cloud import connect
from byzshield_exp.launch.ec2.facts import Facts, _list_price
from byzshield_exp.launch.ec2.options import Options, options_of
from byzshield_exp.launch.ec2.plan import describe, plan

FACTS = Facts(
    account="123456789012", owner="ada", region="us-east-1", zone="us-east-1a", subnet="subnet-1",
    vpc="vpc-1", image="ami-1", root_device="/dev/xvda", usd_per_hour=0.5, price_source="given",
    wheel_sha256="0" * 64, public_key=None,
)  # fmt: skip
LOCAL = {"transport": "local"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workres": 2}, "workres=2: unknown key"),
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"workers": True}, "workers=True must be int"),
        ({"workers": 2.5}, "workers=2.5 must be int"),
        ({"market": "free"}, "market='free' must be one of spot, on_demand"),
        ({"workers": 9}, "max_instances=8: 1 gang.s. of 1 server and 9 workers are 10 instances"),
        ({"gangs": 3}, "max_instances=8: 3 gang.s. of 1 server and 2 workers are 9 instances"),
        ({"max_usd": 0}, "max_usd=0.0 must be above 0"),
        ({"max_hours": float("nan")}, "max_hours=nan must be above 0"),
        ({"name": "Not This"}, "name='Not This' must be lower-case"),
        ({"ami": "the newest"}, "ami='the newest' must be ami-"),
        ({"efs": "mine"}, "efs='mine' must be null, create or fs-"),
        ({"efs": "create"}, "efs=create: needs an instance_profile"),
        ({"bucket": "results"}, "bucket='results' must be s3://"),
        ({"https_to": "everywhere"}, "https_to='everywhere' is no IPv4 network"),
        ({"transport": "ssm"}, "instance_profile is not given: transport=ssm needs it"),
        ({"transport": "ssh"}, "ssh_from=None: transport=ssh needs it"),
        ({"ssh_from": "1.2.3.4/32"}, "ssh_from=1.2.3.4/32: transport=local opens no port"),
        (
            {"transport": "ssh", "ssh_from": "0.0.0.0/0", "ssh_key": "key", "wheel": "a.whl"},
            "ssh_from=0.0.0.0/0 must be one address, with /32",
        ),
        ({"transport": "ssh", "ssh_from": "1.2.3.4/32", "wheel": "a.whl"}, "ssh_key is not given"),
        ({"wheel": "s3://b/a.whl"}, "wheel_sha256 is not given"),
    ],
)
def test_options_that_cannot_be(values, message):
    with pytest.raises(ConfigError, match=message):
        options_of(LOCAL | values)


def test_a_plan_that_may_cost_too_much_names_the_hours_that_fit():
    options = options_of(LOCAL | {"max_usd": 3, "max_hours": 4, "gangs": 2})
    with pytest.raises(ConfigError, match=r"4 hours at 1 USD may cost 4.00; max_hours=3 would fit"):
        plan(options, FACTS)
    plan(dataclasses.replace(options, max_hours=3.0), FACTS)


def test_a_plan_says_all_that_it_will_make():
    options = Options(
        transport="ssh", ssh_from="203.0.113.7/32", ssh_key="key", wheel="a.whl", efs="create",
        instance_profile="worker", https_to="172.16.0.0/12", market="on_demand",
    )  # fmt: skip
    text = describe(plan(options, FACTS))
    for line in (
        "1 x c7i.xlarge: the server",
        "2 x c7i.xlarge: workers, 2 processes each (cluster.num_processes=5)",
        "at most 1.00 USD: 3 instances for max_hours=2",
        "in: tcp 22, 203.0.113.7/32",
        "in: all from and to itself",
        "out: tcp 443, 172.16.0.0/12",
        "EFS byzshield-byzshield-fdee430d40bd, encrypted",
        "3 instances, 3 volumes, 3 network interfaces\n",
    ):
        assert line in text, line
    assert "0.0.0.0" not in text
    assert "spot" not in text


@pytest.mark.parametrize("peer", ["sg-1", "pl-2", "10.0.0.0/8", "::/0", "2001:db8::/32"])
@pytest.mark.parametrize("ports", [("-1", -1, -1), ("tcp", 22, 22)])
def test_a_rule_that_was_read_is_written_as_it_was(peer, ports):
    rule = (*ports, peer)
    assert requests.rules_of([requests.permission(rule)]) == {rule}
    (key,) = requests.permission(rule).keys() - {"IpProtocol", "FromPort", "ToPort"}
    kinds = {"s": "UserIdGroupPairs", "p": "PrefixListIds", "1": "IpRanges"}
    assert key == kinds.get(peer[0], "Ipv6Ranges")


def test_the_shared_folder_of_a_name_is_another_one_for_each_owner():
    options = options_of(LOCAL)
    for request in (requests.create_shared, requests.create_shared_group):
        made = [request(options, dataclasses.replace(FACTS, owner=name)) for name in ("ada", "bob")]
        assert made[0].keys() == made[1].keys()
        assert not {str(value) for value in made[0].values()} & {
            str(made[1][key]) for key in ("CreationToken", "GroupName", "Tags") if key in made[1]
        }
    longest = options_of(LOCAL | {"name": "a" * 31})
    request = requests.create_shared(longest, dataclasses.replace(FACTS, owner="b" * 256))
    assert len(request["CreationToken"]) <= 64


def test_user_data_ends_the_instance_by_itself_within_the_hours():
    options = options_of(LOCAL | {"max_hours": 1.5})
    assert plan(options, FACTS).user_data.splitlines()[1].startswith("shutdown -h +90 ")


def test_a_list_price_is_read_from_the_price_list():
    import boto3
    from botocore.stub import ANY, Stubber

    product = {
        "product": {"sku": "A"},
        "terms": {
            "OnDemand": {
                "A.B": {
                    "priceDimensions": {"A.B.C": {"unit": "Hrs", "pricePerUnit": {"USD": "0.17"}}}
                }
            }
        },
    }
    pricing = boto3.client(
        "pricing", "us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    with Stubber(pricing) as stub:
        asked = {"ServiceCode": "AmazonEC2", "Filters": ANY}
        stub.add_response("get_products", {"PriceList": [json.dumps(product)]}, asked)
        cloud = ec2_cloud.only(pricing=pricing)
        assert _list_price(cloud, "c7i.xlarge", "us-east-1a") == 0.17
        stub.add_response("get_products", {"PriceList": []}, asked)
        with pytest.raises(LookupError, match="no list price of c7i"):
            _list_price(cloud, "c7i.xlarge", "us-east-1a")


def test_a_dry_run_creates_nothing(aws, tmp_path, capsys):
    before = aws.inventory()
    arguments = [f"output_dir={tmp_path}", "transport=local", "usd_per_hour=0.5"]
    for command in ("plan", "up"):
        assert main([command, *arguments]) == 0
    assert aws.inventory() == before
    assert not [call.action for call in aws.calls if call.creates]
    dry = sorted({call.action for call in aws.calls if call.is_dry})
    assert dry == ["CreateSecurityGroup", "RunInstances"]
    assert not list(tmp_path.iterdir())
    out = capsys.readouterr().out
    assert out.count("run_instances: would succeed") == 4
    assert "| shutdown -h +120" in out


def test_the_spot_price_is_looked_up(aws, tmp_path, capsys):
    assert main(["plan", f"output_dir={tmp_path}", "transport=local"]) == 0
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    assert f"price 3e-05 USD per hour and gang (spot prices of {day}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("market=on_demand", "usd_per_hour is not given, and the price could not be looked up"),
        ("zone=us-east-1z", "us-east-1 has no such subnet (or no default one) in us-east-1z"),
        ("subnet=subnet-12345678", "subnet=subnet-12345678: us-east-1 has no such subnet"),
        ("ami=ami-12345678", "ami=ami-12345678: us-east-1 has no such image"),
        ("ami=/no/such/parameter", "ami=/no/such/parameter: us-east-1 has no such image"),
    ],
)
def test_what_is_not_there_is_named(aws, tmp_path, capsys, argument, line):
    assert main(["plan", f"output_dir={tmp_path}", "transport=local", argument]) == 2
    assert line in capsys.readouterr().err


def test_a_dry_run_that_ec2_refuses_is_an_error(aws, tmp_path, capsys):
    aws.before = lambda call: (
        ec2_cloud.error_of("UnauthorizedOperation", 403) if call.action == "RunInstances" else None
    )
    assert main(["plan", f"output_dir={tmp_path}", "transport=local"]) == 1
    assert "run_instances would fail: An error occurred (Unauth" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_is_that_of_the_environment(monkeypatch, name):
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(ConfigError, match="region is not given"):
        connect(None)
    monkeypatch.setenv(name, "eu-north-1")
    assert connect(None).region == "eu-north-1"
    assert connect("eu-west-3").region == "eu-west-3"


def test_the_launcher_has_the_same_keys():
    from hydra_plugins.byzshield_ec2_launcher import EC2LauncherConf

    ours = dataclasses.asdict(Options(transport="local")) | {"transport": "ssm"}
    theirs = dataclasses.asdict(EC2LauncherConf())
    assert theirs.pop("_target_").endswith(".EC2Launcher")
    assert theirs | {"output_dir": "outputs"} == ours
