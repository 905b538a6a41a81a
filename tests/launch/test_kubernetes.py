"""The TrainJob of examples/kubernetes: its form, and its command in the environment of its pods."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JOB = ROOT / "examples" / "kubernetes" / "trainjob.yaml"
SCHEMA = ROOT / "tests" / "helpers" / "trainjob_schema.yaml"


def closed(schema):
    """Refuse properties that a schema does not list, as Kubernetes does for typed objects."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {key: closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        inside["additionalProperties"] = False
    return inside


@pytest.fixture(scope="module")
def errors():
    """``errors(job) -> messages`` of the schema."""
    jsonschema = pytest.importorskip("jsonschema", reason="comes with moto[server]")
    schema = yaml.safe_load(SCHEMA.read_text())
    top = schema["properties"]
    top["metadata"] = {"type": "object"}
    top["apiVersion"]["const"], top["kind"]["const"] = "trainer.kubeflow.org/v1alpha1", "TrainJob"
    validator = jsonschema.Draft202012Validator(closed(schema))
    return lambda job: [error.message for error in validator.iter_errors(job)]


def test_the_job_has_the_published_form(errors):
    assert errors(yaml.safe_load(JOB.read_text())) == []


@pytest.mark.parametrize(
    ("find", "put", "said"),
    [
        ("numNodes: 16", "numNodes: many", "'many' is not of type 'integer'"),
        ("numProcPerNode", "numProcsPerNode", "'numProcsPerNode' was unexpected"),
        ("    name: torch-distributed", "    kind: ClusterTrainingRuntime", "'name' is a required"),
        ("claimName", "claim", "'claim' was unexpected"),
        ("Seconds: 120", "Seconds: -1", "-1 is less than the minimum of 0"),
        ("v1alpha1", "v1", "'trainer.kubeflow.org/v1alpha1' was expected"),
    ],
)
def test_the_schema_refuses(errors, find, put, said):
    text = JOB.read_text()
    assert find in text
    assert any(said in message for message in errors(yaml.safe_load(text.replace(find, put))))


def test_the_job_fits_its_run_and_the_image():
    spec = yaml.safe_load(JOB.read_text())["spec"]
    trainer, (patch,) = spec["trainer"], spec["runtimePatches"]
    workers = int(next(one for one in trainer["args"] if one.startswith("K="))[2:])
    assert trainer["numNodes"] * trainer["numProcPerNode"] == workers + 1
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert mount["name"] == pod["volumes"][0]["name"]
    for key in ("output_dir", "dataset.root"):
        (value,) = [one for one in trainer["args"] if one.startswith(f"{key}=")]
        assert value.startswith(f"{key}={mount['mountPath']}/")
    assert pod["terminationGracePeriodSeconds"] > 30  # torchrun waits so long


@pytest.mark.slow
def test_its_command_runs_in_the_environment_of_its_pods(tmp_path):
    """Two pods of two processes, as the plugin torch of Trainer 2.3.0 sets them up."""
    trainer = yaml.safe_load(JOB.read_text())["spec"]["trainer"]
    torchrun, *options = trainer["command"]
    assert torchrun == "torchrun"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changed = [
        "dataset=digits",
        "steps=2",
        f"output_dir={tmp_path}",
        "dataset.root=",
        "network=mlp",
    ]
    keys = tuple(f"{one.partition('=')[0]}=" for one in changed)
    args = [one for one in trainer["args"] if not one.startswith(keys)]
    args += [one for one in changed if not one.endswith("=")]
    command = [sys.executable, "-m", "torch.distributed.run", *options, *args]
    pods = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={
                **os.environ, "PET_NNODES": "2", "PET_NPROC_PER_NODE": "2",
                "PET_NODE_RANK": str(node), "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            },
        )
        for node in range(2)
    ]  # fmt: skip
    try:
        said = [pod.communicate(timeout=250)[0] for pod in pods]
    finally:
        for pod in pods:
            pod.kill()
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert re.search(r"done: test accuracy [\d.]+ after 2 steps", said[0])
    assert "test accuracy" not in said[1]
