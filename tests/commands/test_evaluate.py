"""Evaluation: the numbers, and the evaluator beside a run."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from running import SMALL, metrics_of, run_program, summary_of
from torch.nn.functional import cross_entropy

from byzshield_exp.commands import evaluate as command
from byzshield_exp.datasets import synthetic
from byzshield_exp.networks import flatten, mlp
from byzshield_exp.results import checkpoint
from byzshield_exp.training.accuracy import evaluate

OPTIONS = (*SMALL, "eval_every=2", "checkpoint_every=2", "keep=100")


@pytest.fixture
def evaluator(capsys):
    """Run the evaluator in this process: ``evaluator(*arguments) -> (exit code, out, err)``."""

    def call(*arguments):
        before = signal.getsignal(signal.SIGTERM)
        try:
            code = command.main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
        return (code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """The folder of a finished run of 6 steps with 3 checkpoints."""
    out = tmp_path_factory.mktemp("outputs")
    done = run_program(*OPTIONS, "steps=6", f"output_dir={out}")
    assert done.returncode == 0, done.stderr
    return next(out.iterdir())


@pytest.fixture
def finished(a_run, tmp_path):
    """A copy of it."""
    return shutil.copytree(a_run, tmp_path / "outputs" / "run")


def evaluations_of(folder):
    return [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "byzshield_exp", "evaluate", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_numbers_against_a_plain_reading():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(12, 7))
    images, labels = torch.randn(450, 3, 2, 2), torch.randint(7, (450,))
    result = evaluate(network, zip(images.split(200), labels.split(200), strict=True))
    assert network.training
    scores = network.eval()(images)
    best = [{*row.argsort(descending=True)[:5].tolist()} for row in scores]
    assert result.accuracy == (scores.argmax(dim=1) == labels).sum().item() / 450
    assert result.top5 == sum(int(c) in five for c, five in zip(labels, best, strict=True)) / 450
    assert result.loss == pytest.approx(cross_entropy(scores, labels).item(), rel=1e-5)
    few = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    assert evaluate(few, [(images, labels % 4)]).top5 is None


@pytest.mark.slow
def test_it_has_the_runs_own_numbers(evaluator, finished):
    code, out, err = evaluator(f"run={finished}")
    assert (code, err) == (0, "")
    own = {record["step"]: record for record in metrics_of(finished.parent)}
    records = evaluations_of(finished)
    assert [record["step"] for record in records] == [2, 4, 6]
    for record in records:
        assert record["test_accuracy"] == own[record["step"]]["test_accuracy"]
        assert record["test_loss"] == own[record["step"]]["test_loss"]
        assert record["test_accuracy"] <= record["test_top5"] <= 1
        assert record["num_pictures"] == 500
        assert record["checkpoint"] == f"checkpoints/step_{record['step']:08d}.pt"
        assert record["seconds"] > 0
        assert record["time"].endswith("+00:00")
    assert records[-1]["parameters_sha256"] == summary_of(finished.parent)["parameters_sha256"]
    assert "step 6  test loss" in out


def test_tensorboard_shows_them_beside_the_run(evaluator, finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in (4, 6):
        (finished / f"checkpoints/step_{step:08d}.pt").rename(finished / str(step))
    assert evaluator(f"run={finished}")[0] == 0
    for step in (4, 6):
        (finished / str(step)).rename(finished / f"checkpoints/step_{step:08d}.pt")
    assert evaluator(f"run={finished}")[0] == 0
    events = EventAccumulator(str(finished / "evaluations")).Reload()
    shown = {
        "test_accuracy": "accuracy/test", "test_loss": "loss/test",
        "test_top5": "accuracy/test_top5",
    }  # fmt: skip
    for name, tag in shown.items():
        expected = {record["step"]: record[name] for record in evaluations_of(finished)}
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert len(found) == 3
        assert dict(found) == pytest.approx(expected)
    own = EventAccumulator(str(finished)).Reload()
    assert "accuracy/test_top5" not in own.Tags()["scalars"]


def test_nothing_is_done_twice_and_half_a_line_is_repaired(evaluator, finished):
    evaluator(f"run={finished}")
    path = finished / "evaluations.jsonl"
    whole = path.read_bytes()
    assert evaluator(f"run={finished}", "follow=true")[0] == 0
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-100])
    code, out, _ = evaluator(f"run={finished}")
    assert code == 0
    assert out.count("test accuracy") == 1
    assert [record["step"] for record in evaluations_of(finished)] == [2, 4, 6]
    assert path.read_bytes().startswith(whole[: whole.index(b'{"step": 6')])


def test_the_results_may_go_elsewhere(evaluator, finished, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    code, out, err = evaluator(f"run={finished}", f"output={tmp_path / 'a' / 'b'}")
    assert (code, err) == (0, "")
    assert f"results in {tmp_path / 'a' / 'b'}" in out
    assert len(evaluations_of(tmp_path / "a" / "b")) == 3
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_damaged_checkpoint_is_not_evaluated(evaluator, finished):
    path = finished / "checkpoints" / "step_00000004.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    for more in ((), ("follow=true", "every=0.01")):
        code, _, err = evaluator(f"run={finished}", *more)
        assert code == 1
        warning, line = err.splitlines()
        assert warning.startswith(f"warning: the checkpoint {path} cannot be read")
        assert line.endswith("1 of 3 checkpoints cannot be read: step_00000004.pt")
        assert [record["step"] for record in evaluations_of(finished)] == [2, 6]
    path.write_bytes(whole)
    assert evaluator(f"run={finished}")[0] == 0
    assert [record["step"] for record in evaluations_of(finished)] == [2, 6, 4]


def test_a_checkpoint_that_vanishes_is_a_line(evaluator, finished, monkeypatch):
    load = checkpoint.load

    def late(path):
        if path.name == "step_00000002.pt":
            path.unlink()
        return load(path)

    monkeypatch.setattr(checkpoint, "load", late)
    code, _, err = evaluator(f"run={finished}", "follow=true")
    assert code == 0
    (line,) = err.splitlines()
    assert "step_00000002.pt was deleted before it could be read" in line
    assert [record["step"] for record in evaluations_of(finished)] == [4, 6]


def test_a_checkpoint_of_another_network_is_a_line(evaluator, finished):
    path = finished / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["network"]["hidden"] = [17]
    path.write_text(yaml.safe_dump(config))
    code, _, err = evaluator(f"run={finished}")
    assert code == 1
    assert "is not of this run: step 2, d=1,210" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run=nowhere"], 2, "run=nowhere is no folder of a run: it has no config.yaml"),
        (["folow=true"], 2, "unknown key folow, there are run, follow"),
        (["follow=true"], 2, "run is not given"),
        (["run"], 2, "run: arguments are key=value"),
        (["run="], 2, "run=: arguments are key=value"),
        (["run=a", "run=b"], 2, "run=b: run is given twice"),
        (["run=a", "follow=yes"], 2, "follow=yes must be one of true, false"),
        (["run=a", "device=tpu"], 2, "device=tpu must be one of cpu, cuda"),
        (["run=a", "every=0"], 2, "every=0 must be a finite number of seconds above 0"),
        (["run=a", "timeout=inf"], 2, "timeout=inf must be a finite number of seconds above 0"),
        (["run=a", "timeout=soon"], 2, "timeout=soon must be a finite"),
        (["run={empty}"], 1, "has no checkpoint (follow=true waits)"),
        (["run={empty}", "follow=true", "timeout=0.2"], 1, "nothing new in {empty} for timeout=0"),
        (["run=nowhere", "follow=true", "timeout=0.2"], 1, "nothing new in nowhere for timeout=0"),
        (["run={empty}", "dataset.root=x"], 2, "dataset.root='x': unknown argument"),
        (["run={empty}", "output={empty}/config.yaml/a"], 2, "config.yaml/a cannot be written"),
        (["run={broken}"], 2, "config.yaml is no configuration of a run"),
        (["run={odd}"], 2, "config.yaml is no configuration of a run: 'dataset'"),
    ],
)
def test_what_cannot_be_done_is_one_line(evaluator, finished, tmp_path, arguments, code, message):
    folders = {name: tmp_path / name for name in ("empty", "broken", "odd")}
    for folder in folders.values():
        folder.mkdir()
    (folders["empty"] / "config.yaml").write_text((finished / "config.yaml").read_text())
    (folders["broken"] / "config.yaml").write_text("a: [")
    (folders["odd"] / "config.yaml").write_text("device: cpu")
    found, _, err = evaluator(*[argument.format(**folders) for argument in arguments])
    assert found == code, err
    assert message.format(**folders) in err
    assert len(err.splitlines()) == 1


def test_without_arguments_it_says_how(evaluator):
    code, out, _ = evaluator()
    assert code == 0
    for key in ("run", "follow", "every", "timeout", "output", "device", "dataset.root"):
        assert f"\n    {key} " in out


def test_data_that_lie_elsewhere_on_this_machine(evaluator, finished, tmp_path, monkeypatch):
    """``dataset.root`` replaces the run's."""
    from byzshield_exp import datasets

    def rooted(root: str):
        assert Path(root).is_dir(), root
        return datasets.synthetic()

    monkeypatch.setattr(datasets, "rooted", rooted, raising=False)
    path = finished / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["dataset"] = {"_target_": "byzshield_exp.datasets.rooted", "root": "/not/here"}
    path.write_text(yaml.safe_dump(config))
    assert evaluator(f"run={finished}", f"dataset.root={tmp_path}")[0] == 0
    own = metrics_of(finished.parent)[-1]["test_accuracy"]
    assert evaluations_of(finished)[-1]["test_accuracy"] == own


@pytest.mark.slow
def test_the_test_set_of_a_run_that_has_validation_pictures(evaluator, tmp_path):
    done = run_program(*OPTIONS, "dataset.num_validation=300", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "validation accuracy" in done.stdout
    assert "test accuracy" not in done.stdout
    (folder,) = tmp_path.iterdir()
    code, out, err = evaluator(f"run={folder}")
    assert (code, err) == (0, "")
    assert "500 test pictures" in out
    record = evaluations_of(folder)[-1]
    assert record["num_pictures"] == 500
    data = synthetic(num_validation=300)
    network = mlp(data.shape, data.num_classes, hidden=[16])
    params = flatten(network).params
    params.copy_(checkpoint.load(folder / record["checkpoint"])["params"])
    assert record["test_accuracy"] == evaluate(network, data.chunks("test")).accuracy
    own = evaluate(network, data.chunks("validation")).accuracy
    assert summary_of(tmp_path)["final_validation_accuracy"] == own


@pytest.mark.slow
def test_it_needs_no_hydra(finished):
    code = (
        "import sys; from byzshield_exp.commands.evaluate import main; "
        f"code = main(['run={finished}']); "
        "assert not {'hydra', 'omegaconf'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_one_evaluator_at_a_time_ends_cleanly_at_sigterm(evaluator, finished):
    assert evaluator(f"run={finished}")[0] == 0
    (finished / "summary.json").unlink()
    first = start(f"run={finished}", "follow=true", "every=0.1")
    try:
        assert "3 checkpoints evaluated before" in first.stdout.readline()
        code, _, err = evaluator(f"run={finished}")
        assert code == 2
        assert "is in use by another evaluator" in err
    finally:
        first.terminate()
        _, err = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM
    assert err == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_closed_to_writing_is_one_line(evaluator, finished):
    finished.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, _, err = evaluator(f"run={finished}")
    finished.chmod(stat.S_IRWXU)
    assert code == 2
    assert "cannot be written" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.thorough)]
)
def test_beside_a_run_every_checkpoint_is_evaluated_once(tmp_path, number):
    """Started before the run, ended in the middle of it and started again."""
    options = (*SMALL, "steps=150", "eval_every=5", "checkpoint_every=5", "keep=1000")
    out = tmp_path / "outputs"
    plan = subprocess.run(
        [sys.executable, "-m", "byzshield_exp", *options, f"output_dir={out}", "plan=true"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = Path(plan.stdout.strip().rpartition("new: ")[2])
    assert not out.exists()
    watch = (f"run={folder}", "follow=true", "every=0.02", "timeout=60")
    evaluator = start(*watch)
    assert "waiting for" in evaluator.stdout.readline()
    run = subprocess.Popen(
        [sys.executable, "-m", "byzshield_exp", *options, f"output_dir={out}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        path = folder / "evaluations.jsonl"
        while time.monotonic() < deadline:
            if path.exists() and path.read_bytes().count(b"\n") >= 3:
                break
            time.sleep(0.01)
        evaluator.send_signal(number)
        _, err = evaluator.communicate(timeout=60)
        assert evaluator.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[number]
        assert "Traceback" not in err
        evaluator = start(*watch)
        _, err_of_run = run.communicate(timeout=120)
        assert run.returncode == 0, err_of_run
        told, err = evaluator.communicate(timeout=120)
        assert evaluator.returncode == 0, err
        assert "done: 30 checkpoints evaluated" in told
    finally:
        for process in (run, evaluator):
            process.kill()
            process.communicate()
    steps = [record["step"] for record in evaluations_of(folder)]
    assert sorted(steps) == list(range(5, 151, 5))
    own = {record["step"]: record for record in metrics_of(out)}
    for record in evaluations_of(folder):
        assert record["test_accuracy"] == own[record["step"]]["test_accuracy"]
        assert record["test_loss"] == own[record["step"]]["test_loss"]
