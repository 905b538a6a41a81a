import json
import re
import subprocess
import sys
import time
import urllib.request

import pytest
from running import SMALL, metrics_of, summary_of

from byzshield_exp.results.recorder import read_records

KEYS = {
    "final_test_accuracy", "best_test_accuracy", "steps", "seconds_per_step", "num_parameters",
    "num_corrupt", "epsilon_hat", "num_files", "byzantine", "parameters_sha256", "buffers_sha256",
    "bytes_in_per_step", "files_computed", "attack_effective", "diverged_at_step",
    "server_memory_bytes", "versions",
}  # fmt: skip


def test_the_summary_has_its_keys(run):
    summary = run()
    assert set(summary) == KEYS
    assert re.fullmatch("[0-9a-f]{64}", summary["parameters_sha256"])
    assert 0 <= summary["final_test_accuracy"] <= summary["best_test_accuracy"] <= 1
    assert summary["num_parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert summary["files_computed"] == [25]
    assert summary["bytes_in_per_step"] == 0


def test_tensorboard_has_the_same_numbers(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    summary = run("steps=6", "eval_every=3")
    records = metrics_of(tmp_path)
    (folder,) = (tmp_path / "outputs").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    for name in ("loss", "lr", "distorted_files", "seconds/compute", "test_accuracy"):
        *path, last = name.split("/")
        expected = [
            (record["step"], (record[path[0]] if path else record)[last])
            for record in records
            if last in (record[path[0]] if path else record)
        ]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected])
    (final,) = events.Scalars("hp/final_test_accuracy")
    assert final.value == pytest.approx(summary["final_test_accuracy"])
    (text,) = events.Tensors("config/text_summary")
    assert b'"K": 15' in text.tensor_proto.string_val[0]


def test_with_validation_pictures_all_names_say_so(cli, run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ("dataset.num_validation=300", "eval_every=2")
    summary = run(*options)
    names = {name.replace("test_accuracy", "validation_accuracy") for name in KEYS}
    assert set(summary) == names
    evaluated = [record for record in metrics_of(tmp_path) if "validation_accuracy" in record]
    assert [record["step"] for record in evaluated] == [2, 4]
    assert evaluated[-1]["validation_accuracy"] == summary["final_validation_accuracy"]
    assert max(r["validation_accuracy"] for r in evaluated) == summary["best_validation_accuracy"]
    assert not [name for record in metrics_of(tmp_path) for name in record if "test" in name]
    (folder,) = (tmp_path / "outputs").iterdir()
    tags = EventAccumulator(str(folder)).Reload().Tags()["scalars"]
    assert {"validation_accuracy", "validation_loss", "hp/final_validation_accuracy"} <= set(tags)
    assert not [tag for tag in tags if "test" in tag]
    _, out, _ = cli(*SMALL, *options, f"output_dir={tmp_path / 'outputs'}")
    assert "finished" in out
    assert f"validation accuracy {summary['final_validation_accuracy']:.4f} after 4 steps" in out
    again = run(*options, "steps=6")  # resumes
    assert again["best_validation_accuracy"] >= summary["best_validation_accuracy"]


def test_numbers_that_json_lacks_become_null(run, tmp_path):
    run("approach=baseline", "aggregator=mean", "attack=constant", "attack.value=3e38")
    (path,) = tmp_path.glob("**/metrics.jsonl")
    assert "NaN" not in path.read_text()
    assert summary_of(tmp_path)["diverged_at_step"] == 2


def test_the_newest_records_are_read_without_the_others(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 100)))
    assert [record["step"] for record in read_records(path, 40)] == [97, 98, 99]
    assert len(read_records(path, 10**6)) == len(read_records(path)) == 99
    assert read_records(tmp_path / "missing", 40) == []


@pytest.mark.slow
def test_the_dashboard_lists_the_runs_with_their_hparams(run, tmp_path):
    """Through TensorBoard's own HTTP server."""
    accuracies = {q: run(f"q={q}", folder=tmp_path / str(q))["final_test_accuracy"] for q in (2, 3)}
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in server.stderr:
            if found := re.search(r"http://localhost:(\d+)/", line):
                break
        base = f"http://localhost:{found[1]}/data/plugin/hparams/session_groups"
        metric = {"metric": {"group": "", "tag": "hp/final_test_accuracy"}, "includeInResult": True}
        question = {
            "experimentName": "",
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS"],
            "startIndex": 0,
            "sliceSize": 10,
            "colParams": [metric, {"hparam": "q", "includeInResult": True}],
        }
        request = urllib.request.Request(
            base, json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        deadline = time.monotonic() + 60
        groups = []
        while len(groups) < 2 and time.monotonic() < deadline:
            time.sleep(1)  # while the runs are being read
            with urllib.request.urlopen(request, timeout=30) as answer:
                groups = json.load(answer).get("sessionGroups", [])
        shown = {
            int(group["hparams"]["q"]): group["sessions"][0]["metricValues"][0]["value"]
            for group in groups
        }
        assert shown == pytest.approx(accuracies)
    finally:
        server.kill()
        server.wait()
        server.stderr.close()
