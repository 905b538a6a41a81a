"""The doctor: what it finds on this machine, and on machines that are made ill."""

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from running import run_program

from byzshield_exp.commands.doctor import (
    computer,
    graphics,
    main,
    network,
    services,
    software,
    storage,
)
from byzshield_exp.commands.doctor.finding import Finding

SECRET = "wJalrXUtnFEMI-not-a-real-one"
KEY = "AKIAIOSFODNN7EXAMPLE"


def examined(*arguments, **environment):
    """The doctor as a user calls it: exit code and findings by check."""
    done = run_program("doctor", *arguments, "--json", **environment)
    assert not done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    return done.returncode, {one["check"]: one for one in answer["findings"]}


def without_aws(monkeypatch, folder):
    """An environment in which nothing of AWS is set up."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))


# The command.


@pytest.mark.slow
def test_a_machine_that_runs_the_tests_is_well(tmp_path, monkeypatch):
    without_aws(monkeypatch, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm
    began = time.monotonic()
    code, found = examined(f"output_dir={tmp_path}", f"dataset.root={tmp_path}")
    assert time.monotonic() - began < 60
    assert code == 0, found
    assert list(found) == [
        "versions", "requirements", "processor", "threads", "gradient", "gpus", "gpu_run", "name",
        "address", "master", "output_dir", "dataset.root", "files", "shm", "slurm", "aws", "quotas",
    ]  # fmt: skip
    assert all(one["said"] and "\n" not in one["said"] for one in found.values())
    assert all(one["state"] == "ok" or one["advice"] for one in found.values())
    assert f"torch {torch.__version__.partition('+')[0]}" in found["versions"]["said"]
    assert os.listdir(tmp_path) == []


def test_it_is_told_in_one_line_a_check(tmp_path, capsys, monkeypatch):
    without_aws(monkeypatch, tmp_path)
    (tmp_path / "file").write_text("")
    assert main([f"output_dir={tmp_path / 'file'}"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(re.match(r"(ok|note|problem) +[a-z_.]+ +\S", line) for line in lines)
    (line,) = [line for line in lines if "output_dir" in line]
    assert line.startswith("problem")
    assert line.endswith("is no folder -> choose another output_dir")


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    without_aws(monkeypatch, tmp_path)

    def fails():
        raise ImportError("libcudart.so.12: cannot open\nmore")

    monkeypatch.setattr(computer, "gradient", fails)
    assert main([f"output_dir={tmp_path}", "--json"]) == 1
    found = {one["check"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["gradient"]["state"] == "problem"
    assert found["gradient"]["said"].endswith("ImportError: libcudart.so.12: cannot open")
    assert found["quotas"]["state"] == "ok"


@pytest.mark.parametrize("argument", ["output_dirs=x", "output_dir", "dataset.root="])
def test_bad_input_is_one_line(argument, capsys):
    assert main([argument]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert argument.partition("=")[0] in err


# Software.


def write_package(folder, name, version, *asked, python=">=3.9"):
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    lines = [f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
    lines += [f"Requires-Dist: {one}" for one in asked]
    (about / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))


def test_requirements_that_are_not_met_are_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = ("torch<1", "numpy", "nosuchpackage>=1", "absent; extra == 'ssh'")
    write_package(tmp_path, "asks", "1.0", *asked, "gone; sys_platform == 'win32'", python="<3")
    monkeypatch.setattr(software, "_ASKED", ("asks", "lost"))
    found = software.requirements()
    assert found.state == "problem"
    here = torch.__version__.partition("+")[0]
    assert re.match(
        rf"asks needs python <3, here is [\d.]+; asks needs torch<1, here is {here}[^;]*; "
        "asks needs nosuchpackage, which is not installed; lost is not installed",
        found.said,
    )
    assert not re.search("numpy|absent|gone", found.said)


# The machine.


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"), reason="it has no other"
)
def test_the_digest_of_a_gradient_tells_machines_apart(tmp_path, monkeypatch):
    without_aws(monkeypatch, tmp_path)
    here = computer.gradient_digest()
    assert re.fullmatch("[0-9a-f]{16}", here)
    _, found = examined(f"output_dir={tmp_path}")
    assert found["gradient"]["said"].startswith(here)
    _, found = examined(f"output_dir={tmp_path}", ATEN_CPU_CAPABILITY="default")
    assert not found["gradient"]["said"].startswith(here)
    assert found["processor"]["state"] == "note"
    assert re.search(
        "torch takes (DEFAULT|NO AVX); ATEN_CPU_CAPABILITY=default", found["processor"]["said"]
    )


def test_the_digest_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    computer.gradient_digest()
    assert torch.get_num_threads() == before


def test_the_time_of_a_control_group_counts(tmp_path, monkeypatch):
    job = tmp_path / "slurm" / "job"
    job.mkdir(parents=True)
    assert computer.cgroup_cores(tmp_path, "/slurm/job") is None
    (job / "cpu.max").write_text("max 100000\n")
    assert computer.cgroup_cores(tmp_path, "/slurm/job") is None
    (tmp_path / "slurm" / "cpu.max").write_text("150000 100000\n")
    assert computer.cgroup_cores(tmp_path, "/slurm/job") == 1.5
    first = tmp_path / "first" / "cpu"
    first.mkdir(parents=True)
    (first / "cpu.cfs_quota_us").write_text("50000\n")
    (first / "cpu.cfs_period_us").write_text("100000\n")
    assert computer.cgroup_cores(tmp_path / "first", "") == 0.5
    (first / "cpu.cfs_quota_us").write_text("-1\n")
    assert computer.cgroup_cores(tmp_path / "first", "") is None
    monkeypatch.setattr(computer, "cgroup_cores", lambda root, own: 0.5)
    assert computer.threads().state == "note"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_driver_without_a_gpu_for_torch_is_a_problem(tmp_path, monkeypatch):
    assert graphics.gpus() == Finding("gpus", "ok", "none: device=cpu")
    script(tmp_path, "nvidia-smi", "echo 550.54.15")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = graphics.gpus()
    assert found.state == "problem"
    assert "550.54.15" in found.said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_run_takes_the_processor():
    assert graphics.gpu_run() == Finding("gpu_run", "ok", "no GPU: device=cpu")


def test_what_a_gpu_run_would_do_is_told():
    new = graphics.Card(78 << 30, 79 << 30, (9, 0), has_kernels=True)
    old = new._replace(capability=(7, 5), has_kernels=False)
    found = graphics.what_a_run_does([new], has_nccl=True)
    assert found.state == "ok"
    assert found.said == (
        "78.0 of 79.0 GiB free; precision float32, tf32, bf16; files as CUDA graphs; Triton "
        "kernels work; torchrun with one process: rows over nccl, more processes: gloo; "
        "cluster=processes without torchrun: over sockets, through the host"
    )
    found = graphics.what_a_run_does([new, old], has_nccl=True)
    assert found.state == "note"
    assert "78.0 of 79.0, 78.0 of 79.0 GiB free; precision float32; " in found.said
    assert "; Triton kernels fail; " in found.said
    assert "torchrun with up to 2 processes: rows over nccl" in found.said
    assert found.advice.startswith("GPU 1: tf32")
    assert "; GPU 1: Triton fails" in found.advice
    assert "this torch has no NCCL" in graphics.what_a_run_does([new], has_nccl=False).said


def test_a_product_is_compared():
    assert graphics._product("cpu") == ""
    assert graphics._product("cuda:99").startswith("a product fails")


def script(folder, name, *lines):
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


def test_few_open_files_are_a_problem(tmp_path, monkeypatch):
    assert computer.open_files().state == "ok"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        found = computer.open_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found.state == "problem"
    assert "200 open files" in found.said


# The network.


@pytest.mark.parametrize(
    ("name", "told"),
    [("no-such-host.invalid", "does not resolve"), ("localhost", "localhost is ")],
)
def test_a_name_that_means_nothing_to_others_is_told(monkeypatch, name, told):
    monkeypatch.setattr(network, "host_name", lambda: name)
    found = network.own_name()
    assert found.state == "note"
    assert told in found.said
    assert "MASTER_ADDR" in found.advice


def test_the_interface_of_an_address():
    assert network.interface_of("127.0.0.1") == "lo"
    assert network.interface_of("203.0.113.77") is None


def test_an_own_address_is_connected_to():
    assert network._connect_to_self("127.0.0.1") == ""
    assert network._connect_to_self("203.0.113.77") != ""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_machine_without_a_network_is_told():
    code = "from byzshield_exp.commands.doctor import network as n; print(n.address(), n.master())"
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code],
        capture_output=True, text=True, env={**os.environ, "MASTER_ADDR": "203.0.113.77"},
    )  # fmt: skip
    assert "no way to other machines" in done.stdout, done.stderr
    assert "MASTER_ADDR=203.0.113.77 is 203.0.113.77: no route" in done.stdout


def test_the_way_to_the_server(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert network.master().state == "ok"
    monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
    assert network.master().state == "problem"
    monkeypatch.setenv("MASTER_ADDR", "127.0.1.1")
    assert network.master().state == "note"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert network.master().state == "problem"
    own = network._source(network._ELSEWHERE)
    if own is not None:
        monkeypatch.setenv("MASTER_ADDR", own)
        assert network.master().said.endswith("this machine")


def test_a_port_is_open_or_refuses():
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        assert network._dial("127.0.0.1", port) == ""
    assert network._dial("127.0.0.1", port) == "refused"


# Folders.


def test_a_folder_that_is_well(tmp_path):
    found = storage.folder("output_dir", tmp_path)
    assert "write, fsync, rename and locks work" in found.said
    assert found.state != "problem"
    missing = storage.folder("output_dir", tmp_path / "a" / "b")
    assert f"not there yet, checked {tmp_path}" in missing.said
    assert os.listdir(tmp_path) == []
    data = storage.folder("dataset.root", tmp_path / "a", is_read_only=True)
    assert "prepare" in data.advice


def test_a_folder_that_cannot_be_written():
    found = storage.folder("output_dir", Path("/proc/sys"))
    assert found.state == "problem"
    assert "locks work" not in found.said
    assert storage.folder("dataset.root", Path("/proc/sys"), is_read_only=True).said.endswith(
        "read only"
    )


def test_a_file_system_that_forgets_locks_or_is_full(tmp_path, monkeypatch):
    def flock(file, how):
        """As on a mount that takes every lock for granted."""

    monkeypatch.setitem(storage._LOCKS, "flock", flock)
    found = storage.folder("output_dir", tmp_path)
    assert found.state == "problem"
    assert "a flock does not keep other processes out" in found.advice
    monkeypatch.undo()
    monkeypatch.setattr(storage, "_TOO_LITTLE", 1 << 70)
    monkeypatch.setattr(storage, "_LITTLE", 1 << 70)
    assert "make room" in storage.folder("output_dir", tmp_path).advice


def test_locks_are_tried_by_another_process(tmp_path):
    for name in storage._LOCKS:
        assert storage._lock(tmp_path / "lock", name) == ""
        with (tmp_path / "lock").open("a") as held:
            storage._LOCKS[name](held, storage.fcntl.LOCK_EX)
            assert storage._other(tmp_path / "lock", name) == 3


def test_locks_that_stay_on_this_machine_are_a_problem(tmp_path, monkeypatch):
    mounted = "nfs4", frozenset({"rw", "nolock"})
    monkeypatch.setattr(storage, "file_system", lambda path: mounted)
    assert "nolock" in storage.folder("output_dir", tmp_path).advice
    monkeypatch.undo()
    assert storage.file_system(Path("/proc"))[0] == "proc"


def test_the_file_system_is_the_last_one_that_is_mounted_nearest(tmp_path, monkeypatch):
    near, far = tmp_path / "a b", tmp_path / "a b c"
    mounts = [
        SimpleNamespace(mountpoint=str(place), fstype=kind, opts="rw,nolock")
        for place, kind in ((near, "ext4"), (tmp_path, "xfs"), (near, "nfs4"), (far, "tmpfs"))
    ]
    monkeypatch.setattr(storage.psutil, "disk_partitions", lambda all: mounts)
    assert storage.file_system(near / "d") == ("nfs4", frozenset({"rw", "nolock"}))
    assert storage.file_system(tmp_path / "d")[0] == "xfs"


def test_without_a_list_of_mounts_a_folder_is_still_tried(tmp_path, monkeypatch):
    def partitions(all):
        raise FileNotFoundError("/proc/self/mounts")

    monkeypatch.setattr(storage.psutil, "disk_partitions", partitions)
    found = storage.folder("output_dir", tmp_path)
    assert "unknown file system; write, fsync, rename and locks work" in found.said


# Slurm.


@pytest.mark.parametrize(
    ("sinfo", "sacct", "state", "told"),
    [
        ("echo 'debug*  2 idle'", "exit 0", "ok", "partitions: debug* 2 idle; accounting works"),
        ("echo 'p 2 idle'", "echo 'accounting storage is disabled' >&2; exit 1", "note",
         "accounting storage is disabled"),
        ("exit 0", "exit 0", "problem", "partitions: none"),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", "exit 1", "problem", "Unable"),
        ("exec sleep 5", "exit 0", "problem", "no answer"),
    ],
)  # fmt: skip
def test_slurm_answers_or_is_told(tmp_path, monkeypatch, sinfo, sacct, state, told):
    monkeypatch.setattr(services, "_SLURM_S", 1.0)
    script(tmp_path, "sinfo", sinfo)
    script(tmp_path, "sacct", sacct)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    found = services.slurm()
    assert (found.state, told in found.said) == (state, True), found


def test_slurm_without_a_cluster_is_no_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert services.slurm() == Finding("slurm", "ok", "not installed here")


@pytest.mark.skipif(
    not Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf")).exists(),
    reason="there is no Slurm cluster here",
)
def test_a_real_slurm():
    assert services.slurm().state == "ok"


# AWS.


@pytest.fixture(scope="module")
def moto():
    """AWS's interface over HTTP, played by moto."""
    program = Path(sys.executable).with_name("moto_server")
    if not program.exists():
        pytest.skip("moto's server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while network._dial("127.0.0.1", port) and time.monotonic() < deadline:
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


def keys(monkeypatch, folder):
    without_aws(monkeypatch, folder)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)


@pytest.mark.slow
def test_aws_says_who_we_are_and_keys_are_not_shown(moto, tmp_path, monkeypatch):
    keys(monkeypatch, tmp_path)
    done = run_program("doctor", f"output_dir={tmp_path}", AWS_ENDPOINT_URL=moto)
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert lines["aws"].startswith("ok")
    assert "eu-central-1, account 123456789012, arn:aws:sts::123456789012" in lines["aws"]
    assert lines["quotas"].startswith("note")  # moto has no quotas of EC2
    assert KEY not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_quotas_are_read(monkeypatch, tmp_path):
    """From answers in the form of AWS's documentation, as moto has none of EC2's."""
    from botocore.stub import Stubber

    keys(monkeypatch, tmp_path)
    client = services._client(services._session(), "service-quotas")
    for value, state in ((32.0, "ok"), (0.0, "note")):
        with Stubber(client) as stubbed:
            for code in services._QUOTAS.values():
                asked = {"ServiceCode": "ec2", "QuotaCode": code}
                answer = {"Quota": {"QuotaCode": code, "Value": value}}
                stubbed.add_response("get_service_quota", answer, asked)
            with monkeypatch.context() as patched:
                patched.setattr(services, "_client", lambda session, service: client)
                found = services.quotas()
        assert found.state == state
        assert f"standard on demand {value:g}, standard spot {value:g}" in found.said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["closed", "silent", "no region"])
def test_an_aws_that_does_not_answer_is_told_soon(kind, tmp_path, monkeypatch):
    keys(monkeypatch, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        if kind == "closed":
            door.close()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        if kind == "no region":
            monkeypatch.delenv("AWS_REGION")
        began = time.monotonic()
        found = services.aws()
        assert time.monotonic() - began < 8
    assert found.state == "problem"
    assert KEY not in repr(found)
    assert ("region" in found.said) == (kind == "no region")


@pytest.mark.parametrize("has_file", [False, True])
def test_nobody_is_asked_without_credentials(has_file, tmp_path, monkeypatch):
    """Not even the address at which machines of EC2 find theirs."""
    without_aws(monkeypatch, tmp_path)
    if services._is_in_ec2():
        pytest.skip("this is a machine of EC2")
    if has_file:
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "config").write_text("[default]\nregion = eu-central-1\n")
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        states = [services.aws().state, services.quotas().state]
        door.settimeout(0.1)
        with pytest.raises(TimeoutError):
            door.accept()
    assert states == (["note", "ok"] if has_file else ["ok", "ok"])
