import json
import re

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
    assert {"accuracy/validation", "loss/validation"} <= set(tags)
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
