"""``sweep.csv`` and the plan: what is due, what was done, and what became of earlier runs."""

import json
import shutil
import threading
import time

import pytest
from running import summary_of
from sweeping import SHORT, manifest, said, states


def test_a_sweep_and_its_table(cli, tmp_path):
    code, out, err = cli("-m", *SHORT, "approach=mols,detox", "q=0,2", f"output_dir={tmp_path}")
    assert code == 0, err
    rows = manifest(tmp_path)
    assert [(row["approach"], row["q"]) for row in rows.values()] == [
        ("mols", "0"), ("mols", "2"), ("detox", "0"), ("detox", "2"),
    ]  # fmt: skip
    for name, row in rows.items():
        summary = summary_of(tmp_path / name)
        status = states(tmp_path)[name]
        assert (row["state"], row["attempts"], row["error"]) == ("done", "1", "")
        assert float(row["test_accuracy"]) == summary["final_test_accuracy"]
        assert float(row["epsilon_hat"]) == summary["epsilon_hat"]
        assert float(row["seconds"]) == status["seconds"] > 0
        assert status["state"] == "done"
        assert "done: test accuracy" in (tmp_path / name / "log.txt").read_text()
    assert out.count("done: test accuracy") == 4

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    code, out, err = cli("-m", *SHORT, "approach=mols,detox", "q=0,2", f"output_dir={tmp_path}")
    assert code == 0, err
    first, header, *lines, best, last = said(out)
    assert first == f"sweep: 4 runs: 4 done; {tmp_path}/sweep.csv"
    assert header.split() == ["approach", "q", "test", "accuracy", "state", "seconds", "a", "run"]
    shown = [line.split()[:3] for line in lines]
    accuracies = [f"{float(row['test_accuracy']):.4f}" for row in rows.values()]
    assert shown == [
        ["mols", "0", accuracies[0]], ["mols", "2", accuracies[1]],
        ["detox", "0", accuracies[2]], ["detox", "2", accuracies[3]],
    ]  # fmt: skip
    worst = max(min(accuracies[:2]), min(accuracies[2:]))
    assert best.startswith(f"best test accuracy in the worst case over q: {worst} with approach=")
    assert last == "4 of 4 done"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")} == before
    assert list(manifest(tmp_path)) == list(rows)


@pytest.mark.slow
def test_a_plan_says_what_and_why(cli, run, tmp_path):
    folder = tmp_path / "out"
    points = ("-m", *SHORT, "q=0,1,2", f"output_dir={folder}")
    code, out, _ = cli(*points, "plan=true")
    assert code == 0
    assert out.count("new: ") == 3
    assert said(out)[-1] == "plan: 3 runs: 3 new"  # no estimate yet
    assert not folder.exists()
    run("q=0", "checkpoint_every=2", folder=folder)
    run("q=1", "checkpoint_every=2", folder=folder / "other")
    (other,) = (folder / "other").iterdir()
    shutil.move(other, folder / other.name)
    code, out, _ = cli(*points, "plan=true", "steps=6")
    assert out.count("(resumes after step 4)") == 2
    code, out, _ = cli(*points, "plan=true")
    assert out.count("done: ") == 2
    assert out.splitlines()[-1].startswith("plan: 3 runs: 2 done, 1 new; about ")


@pytest.mark.slow
def test_earlier_runs_stay_in_the_table(cli, tmp_path):
    cli("-m", *SHORT, "q=0,1", f"output_dir={tmp_path}")
    first = manifest(tmp_path)
    code, _, err = cli("-m", *SHORT, "attack=none,ipm", "q=1", f"output_dir={tmp_path}")
    assert code == 0, err
    rows = manifest(tmp_path)
    assert len(rows) == 4
    assert all(rows[name]["test_accuracy"] == row["test_accuracy"] for name, row in first.items())
    assert {row["attack"] for row in rows.values()} == {"alie", "none", "ipm"}
    shutil.rmtree(tmp_path / next(iter(first)))
    cli("-m", *SHORT, "attack=none,ipm", "q=1", f"output_dir={tmp_path}")
    assert len(manifest(tmp_path)) == 3


def test_the_table_says_what_became_of_the_runs_of_earlier_sweeps(cli, tmp_path):
    """Their drivers may have been killed, or Slurm has done the runs since."""
    cli("-m", *SHORT, "q=0,1", f"output_dir={tmp_path}")
    done, killed = sorted(states(tmp_path))
    status = tmp_path / killed / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "running"}))
    table = tmp_path / "sweep.csv"
    table.write_text(table.read_text().replace(",done,", ",queued,"))
    cli("-m", *SHORT, "q=2,3", f"output_dir={tmp_path}")
    rows = manifest(tmp_path)
    assert (rows[done]["state"], rows[killed]["state"]) == ("done", "stopped")
    assert rows[done]["test_accuracy"]


def test_drivers_that_write_a_table_at_once_lose_no_row(tmp_path):
    """Each waits for the other between reading the table and writing it."""
    from byzshield_exp.launch.manifest import _locked

    order = []

    def write(name):
        with _locked(tmp_path):
            order.append(name)
            time.sleep(0.3)
            order.append(name)

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert "".join(order) in ("aabb", "bbaa")


@pytest.mark.slow
def test_several_output_dirs_have_a_table_each(cli, tmp_path):
    folders = f"output_dir={tmp_path}/a,{tmp_path}/b"
    code, out, err = cli("-m", *SHORT, "seed=0,1", folders)
    assert code == 0, err
    for folder in ("a", "b"):
        rows = manifest(tmp_path / folder)
        assert len(rows) == 2
        assert {row["output_dir"] for row in rows.values()} == {f"{tmp_path}/{folder}"}
    code, out, _ = cli("-m", *SHORT, "seed=0,1", folders, "plan=true")
    assert out.count(f"done: {tmp_path}/a/") == out.count(f"done: {tmp_path}/b/") == 2
