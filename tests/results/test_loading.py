"""Runs as pandas tables: none is left out, and nothing is other than in its folder."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from running import metrics_of, summary_of

pytest.importorskip("pandas", reason="needs pandas, which the extra report has")

from byzshield_exp.errors import ConfigError
from byzshield_exp.results import load


def test_rows_are_what_the_folders_say(run, tmp_path):
    """For two settings, of which one has two seeds and one diverges."""
    constant = ("attack=constant", "attack.value=3e38", "approach=baseline", "aggregator=mean")
    for number, options in enumerate([["eval_every=2"], ["eval_every=2", "seed=1"], constant]):
        run(*options, folder=tmp_path / str(number))
    runs, steps, varied = load(tmp_path)
    assert [name for name in varied if name != "seed"] == ["approach", "aggregator", "attack"]
    assert list(runs["state"]) == ["done", "done", "diverged"]
    for row in runs.itertuples():
        assert row.test_accuracy == summary_of(Path(row.folder))["final_test_accuracy"]
        records = metrics_of(Path(row.folder))
        assert list(steps[steps["folder"] == row.folder]["step"]) == [r["step"] for r in records]
        assert row.steps_done == len(records)


def test_a_run_in_any_state_is_a_row(run, tmp_path):
    run(folder=tmp_path / "done")
    (done,) = (tmp_path / "done").iterdir()
    for name, status in {
        "killed": {"state": "running"},
        "failed": {"state": "failed", "error": "rank 2 was killed by signal 9"},
    }.items():
        shutil.copytree(done, tmp_path / name)
        (tmp_path / name / "summary.json").unlink()
        (tmp_path / name / "status.json").write_text(json.dumps(status))
    config = {"q": 5, "steps": 4, "choices": {"attack": "ipm"}}
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "job.json").write_text(json.dumps({"config": config}))
    runs, _, varied = load([tmp_path, done])  # the latter again
    runs = runs.set_index("name").rename({done.name: "done"})
    assert runs["state"].to_dict() == {
        "done": "done", "failed": "failed", "killed": "stopped", "new": "new",
    }  # fmt: skip
    assert runs["error"]["failed"] == "rank 2 was killed by signal 9"
    assert list(runs["steps_done"]) == [4, 4, 4, 0]
    assert list(runs["test_accuracy"].notna()) == [True, False, False, False]
    assert runs["attack"]["new"] == "ipm"
    assert {"attack", "q"} <= {*varied}


def test_validation_has_a_column_of_its_own(run, tmp_path):
    run("dataset.num_validation=300", "network.hidden=[8,8]", folder=tmp_path)
    runs, _, varied = load(str(tmp_path))
    (row,) = runs.to_dict("records")
    assert row["validation_accuracy"] == summary_of(tmp_path)["final_validation_accuracy"]
    assert row["test_accuracy"] != row["test_accuracy"]
    assert row["network.hidden"] == (8, 8)  # can be grouped by
    assert varied == []


def test_only_a_setting_that_its_choice_does_not_decide_varies(plain_config, tmp_path):
    for number, options in enumerate([["attack=ipm"], [], ["attack.z=1.0"]]):
        (tmp_path / str(number)).mkdir()
        text = yaml.safe_dump(plain_config(*options))
        (tmp_path / str(number) / "config.yaml").write_text(text)
    assert load(tmp_path).varied == ["attack", "attack.z"]
    assert load([tmp_path / "0", tmp_path / "1"]).varied == ["attack"]


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path} has no run")):
        load(tmp_path)
