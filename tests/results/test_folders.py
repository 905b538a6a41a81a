"""The run folder: its name, resuming, refusing."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from running import SMALL, metrics_of, run_program, summary_of

from byzshield_exp.results import checkpoint
from byzshield_exp.results.folder import RunFolder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_the_name_is_made_of_what_is_not_default(cli, tmp_path):
    def name(*overrides):
        code, out, err = cli(f"output_dir={tmp_path}", "plan=true", *overrides)
        assert code == 0, err
        return out.splitlines()[-1].rpartition("/")[2]

    assert name() == "default"
    assert name("approach=mols", "K=15", "steps=7", "eval_every=3", "keep=9") == "default"
    assert name("q=2", "attack=none") == name("attack=none", "q=2") == "attack=none,q=2"
    assert name("attack.z=1") == name("attack.z=1.0") == "attack.z=1"
    assert name("approach=detox") == "approach=detox"
    assert name("approach=detox", "aggregator=median_of_means") == "approach=detox"
    assert name("approach=detox", "aggregator=median") == "aggregator=median,approach=detox"
    processes = name("cluster=processes", "cluster.num_processes=4")
    assert processes == "cluster=processes,cluster.num_processes=4"
    free = ("cluster.worker_timeout=7", "cluster.bucket_mib=2", "profile=metrics")
    assert name("cluster=processes", "cluster.num_processes=4", *free) == processes
    assert "/" not in name("dataset=synthetic", "network.hidden_relu=false")
    assert not list(tmp_path.iterdir())  # a plan writes nothing
    assert len(name(*(f"optimizer.lr=0.{'1' * 150}",), f"optimizer.decay=0.{'2' * 150}")) <= 200


def test_a_finished_run_is_not_done_again(cli, run, tmp_path):
    first = run()
    records = metrics_of(tmp_path)
    code, out, _ = cli(*SMALL, f"output_dir={tmp_path}/outputs")
    assert code == 0
    assert "finished: " in out
    assert summary_of(tmp_path) == first
    assert metrics_of(tmp_path) == records


def test_more_steps_continue_with_the_same_bits(run, tmp_path):
    short = run("steps=3", "worker_momentum=0.5", folder=tmp_path / "a")
    longer = run("steps=7", "worker_momentum=0.5", folder=tmp_path / "a")
    at_once = run("steps=7", "worker_momentum=0.5", "eval_every=2", folder=tmp_path / "b")
    assert short["parameters_sha256"] != longer["parameters_sha256"]
    assert longer["parameters_sha256"] == at_once["parameters_sha256"]
    assert [record["step"] for record in metrics_of(tmp_path / "a")] == list(range(1, 8))


def test_a_folder_with_another_run_is_refused_by_key(cli, run, tmp_path):
    run()
    (path,) = tmp_path.glob("**/step_*.pt")
    saved = torch.load(path, weights_only=True)
    config = json.loads(saved["config"])
    config["seed"] = 5
    checkpoint.write(path, {**saved, "config": json.dumps(config)})
    code, _, err = cli(*SMALL, f"output_dir={tmp_path}/outputs")
    assert code == 2
    assert "another value of seed" in err
    assert len(err.splitlines()) == 1


def test_a_summary_of_fewer_steps_is_not_the_result(cli, run, tmp_path):
    """A longer run that was killed between its last checkpoint and its summary."""
    short = run("steps=3", folder=tmp_path / "a")
    stale = next((tmp_path / "a").glob("*/summary.json")).read_text()
    longer = run("steps=6", folder=tmp_path / "a")
    next((tmp_path / "a").glob("*/summary.json")).write_text(stale)
    again = run("steps=6", folder=tmp_path / "a")
    assert short["steps"] == 3
    measured = {key: again[key] for key in ("seconds_per_step", "server_memory_bytes")}
    assert again == {**longer, **measured}
    code, _, err = cli(*SMALL, "steps=3", f"output_dir={tmp_path}/a")
    assert code == 2
    assert "has done 6 steps already" in err


@pytest.mark.slow
def test_any_flipped_bit_of_a_checkpoint_is_noticed_or_harmless(cli, run, tmp_path):
    first = run()
    (path,) = tmp_path.glob("**/step_*.pt")
    good, draw = path.read_bytes(), random.Random(0)
    for _ in range(6):
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        path.write_bytes(bad)
        code, _, err = cli(*SMALL, f"output_dir={tmp_path}/outputs")
        assert code in (0, 2), err
        assert code == 0 or "cannot be read" in err
        assert summary_of(tmp_path) == first


@pytest.mark.parametrize("content", [{}, {"config": "{}"}, [1, 2]])
def test_another_torch_file_is_no_checkpoint(cli, run, tmp_path, content):
    run()
    (path,) = tmp_path.glob("**/step_*.pt")
    for write in (checkpoint.write, lambda path, content: torch.save(content, path)):
        write(path, content)
        code, _, err = cli(*SMALL, f"output_dir={tmp_path}/outputs")
        assert code == 2
        assert "cannot be read" in err


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_corrupt_checkpoint_is_one_line(cli, run, tmp_path, damage):
    run()
    (path,) = tmp_path.glob("**/step_*.pt")
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    code, _, err = cli(*SMALL, f"output_dir={tmp_path}/outputs")
    assert code == 2
    assert f"the checkpoint {path} cannot be read" in err
    assert len(err.splitlines()) == 1


def test_a_checkpoint_cannot_run_code(cli, run, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    run()
    (path,) = tmp_path.glob("**/step_*.pt")
    checkpoint.write(path, {"config": Evil()})
    code, out, err = cli(*SMALL, f"output_dir={tmp_path}/outputs")
    assert code == 2
    assert "cannot be read" in err
    assert "code ran" not in out + err


def test_only_the_newest_checkpoints_are_kept(run, tmp_path):
    run("steps=9", "checkpoint_every=2", "keep=3")
    assert names(next(tmp_path.glob("**/checkpoints"))) == [
        "step_00000006.pt", "step_00000008.pt", "step_00000009.pt",
    ]  # fmt: skip


def test_the_resolved_configuration_is_kept(run, tmp_path):
    run("q=2")
    (path,) = tmp_path.glob("**/config.yaml")
    config = yaml.safe_load(path.read_text())
    assert config["q"] == 2
    assert config["approach"]["num_workers"] == 15
    assert config["choices"]["approach"] == "mols"


@pytest.mark.slow
def test_a_folder_in_use_is_refused(tmp_path):
    command = [sys.executable, "-m", "byzshield_exp", *SMALL, f"output_dir={tmp_path}"]
    slow = subprocess.Popen([*command, "steps=1000000"], stdout=subprocess.DEVNULL)
    try:
        wait_for_steps(tmp_path, 1)
        done = run_program(*SMALL, f"output_dir={tmp_path}", "steps=1000000", timeout=60)
        assert done.returncode == 2
        assert "is in use by another process" in done.stderr
    finally:
        slow.kill()
        slow.wait()


def wait_for_steps(folder, steps, timeout=120):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if any(
            len(path.read_text().splitlines()) >= steps for path in folder.glob("**/metrics.jsonl")
        ):
            return
        time.sleep(0.02)
    raise TimeoutError


@pytest.mark.slow
@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param((), marks=pytest.mark.thorough),
        ("cluster=processes", "cluster.num_processes=3"),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(run, tmp_path, cluster):
    options = (*SMALL, "steps=60", "checkpoint_every=7", "worker_momentum=0.5", *cluster)
    command = [sys.executable, "-m", "byzshield_exp", *options, f"output_dir={tmp_path}/killed"]
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done = sum(1 for _ in metrics_lines(tmp_path))
        wait_for_steps(tmp_path, min(done + random.randint(1, 20), 55))
        process.send_signal(signal.SIGKILL)
        process.wait()
        (folder,) = (tmp_path / "killed").iterdir()
        while RunFolder(folder).in_use:  # until its ranks notice that the driver is gone
            time.sleep(0.05)
    killed = run(*options, small=False, folder=tmp_path / "killed")
    whole = run(*options, small=False, folder=tmp_path / "whole")
    assert killed["parameters_sha256"] == whole["parameters_sha256"]
    assert killed["steps"] == 60
    ours, theirs = metrics_of(tmp_path / "killed"), metrics_of(tmp_path / "whole")
    assert [record["step"] for record in ours] == list(range(1, 61))
    assert [record["loss"] for record in ours] == [record["loss"] for record in theirs]


def metrics_lines(folder):
    for path in folder.glob("**/metrics.jsonl"):
        yield from path.read_text().splitlines()


def test_the_seconds_of_every_phase_are_recorded(run, tmp_path):
    run()
    seconds = metrics_of(tmp_path)[-1]["seconds"]
    phases = {"data", "compute", "attack", "gather", "vote", "aggregate", "update"}
    assert phases <= set(seconds)
    assert sum(seconds[phase] for phase in phases) <= seconds["total"] * 1.01
