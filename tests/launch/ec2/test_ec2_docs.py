"""The page about EC2 says what the code does."""

import json
import re
from pathlib import Path

import pytest

from byzshield_exp.commands.ec2 import _COMMANDS, main
from byzshield_exp.launch.ec2.options import Options

PAGE = (Path(__file__).parents[3] / "docs/ec2.md").read_text()
DRIVER, HOST = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))


def actions_of(policy) -> set[str]:
    found = set()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        found |= {actions} if isinstance(actions, str) else {*actions}
    return found


def test_the_policies_name_calls_that_there_are():
    import botocore.session

    session = botocore.session.get_session()
    names = {"ec2": "ec2", "ssm": "ssm", "elasticfilesystem": "efs", "pricing": "pricing"}
    without_call = {
        "elasticfilesystem:ClientMount",
        "elasticfilesystem:ClientRootAccess", "elasticfilesystem:ClientWrite",
        "ssm:UpdateInstanceInformation",  # of the agent alone
    }  # fmt: skip
    for action in (actions_of(DRIVER) | actions_of(HOST)) - without_call:
        service, _, call = action.partition(":")
        if service in names:
            assert call in session.get_service_model(names[service]).operation_names, action


@pytest.mark.parametrize("policy", [DRIVER, HOST])
def test_the_policies_allow_no_group_of_calls(policy):
    assert not [action for action in actions_of(policy) if "*" in action]
    changing = [
        statement for statement in policy["Statement"]
        if statement["Resource"] == "*" and "Condition" not in statement
    ]  # fmt: skip
    for statement in changing:
        assert statement["Sid"] in ("Look", "StopCommands", "RunCommand")


def test_a_driver_may_change_only_what_is_its_owners():
    conditions = [json.dumps(statement.get("Condition", {})) for statement in DRIVER["Statement"]]
    owned = [condition for condition in conditions if "byzshield:owner" in condition]
    assert len(owned) == 6
    for condition in owned:
        assert json.loads(condition).keys() == {"StringEquals"}
        assert condition.count(': "OWNER"') == 1
    assert "aws:CalledVia" not in PAGE  # EFS does not set it when it makes an interface
    assert "Replace `ACCOUNT`, `BUCKET`, `OWNER`" in PAGE


@pytest.mark.slow
def test_the_driver_may_make_every_call_that_it_makes(aws, tmp_path):
    aws.client("iam").create_instance_profile(InstanceProfileName="worker")
    place = f"output_dir={tmp_path}"
    options = ("transport=local", "efs=create", "instance_profile=worker", "dry_run=false")
    assert main(["up", place, *options]) == 0
    assert main(["down", place, "efs=true"]) == 0
    assert main(["gc", "dry_run=false"]) == 0
    allowed = actions_of(DRIVER)
    made = {f"{call.service}:{call.action}" for call in aws.calls if call.service in ("ec2", "ssm")}
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "ssm:GetParameter"} <= made
    assert made <= allowed


def test_every_command_and_key_is_named():
    named = set(re.findall(r"`([a-z_]+)[^`]*`", PAGE))
    assert {"plan", "up", "hosts", "run", "down", "gc", "list", "status", "resume", "tunnel"} <= (
        named | {"plan"}
    )
    assert set(_COMMANDS) <= named | {"plan"}
    for key in re.findall(r"hydra\.launcher\.([a-z_]+)=", PAGE):
        assert hasattr(Options(transport="local"), key), key
