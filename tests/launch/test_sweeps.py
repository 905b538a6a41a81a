"""The runs of a sweep: each is done once and has its own bits; one that breaks stops no other."""

import sys
from pathlib import Path

import pytest
from running import SMALL
from sweeping import CRASHING, RULES, SHORT, hashes, manifest, states


def test_the_same_bits_as_a_single_run(cli, run, tmp_path):
    code, _, err = cli("-m", *SHORT, "q=2", "seed=0,1", f"output_dir={tmp_path}/sweep")
    assert code == 0, err
    alone = run("q=2", "seed=1", folder=tmp_path / "alone")
    assert alone["parameters_sha256"] in hashes(tmp_path / "sweep").values()


def test_a_point_that_breaks_does_not_stop_the_others(cli, tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "crashing", raising=False)  # of another test
    points = (
        "-m", *SHORT, "attack._target_=crashing.forge", "+attack.how=raise,die,fine",
        f"output_dir={tmp_path}/out",
    )  # fmt: skip
    code, out, err = cli(*points)
    assert code == 1
    why = f"ArithmeticError: a rule of the user's own broke ({tmp_path}/crashing.py:8 in forge)"
    assert out.splitlines()[-1] == f"1 of 3 done, 2 failed ({why}, and 1 more)"
    assert err.splitlines()[-1].startswith("byzshield_exp: of 3 runs 2 failed")
    raised, died, fine = manifest(tmp_path / "out").values()
    assert [row["state"] for row in (raised, died, fine)] == ["failed", "failed", "done"]
    assert raised["error"] == why
    assert died["error"] == "rank 0, the server, was killed by signal 9"
    status = states(tmp_path / "out")[raised["name"]]
    assert (status["rank"], status["attempts"]) == (0, 1)
    log = Path(status["log"]).read_text()
    assert "Traceback (most recent call last)" in log
    assert "crashing.py" in log

    code, out, _ = cli(*points, "plan=true")
    assert code == 0
    assert "retry: " in out
    assert "plan: 3 runs: 2 retry, 1 done; about " in out
    (tmp_path / "mended").touch()
    done = tmp_path / "out" / fine["name"] / "summary.json"
    before = done.stat().st_mtime_ns
    code, out, err = cli(*points)
    assert code == 0, err
    assert "resumes after step 2" in out
    rows = list(manifest(tmp_path / "out").values())
    assert [(row["state"], row["attempts"]) for row in rows] == [
        ("done", "2"), ("done", "2"), ("done", "1"),
    ]  # fmt: skip
    assert [row["error"] for row in rows] == ["", "", ""]
    assert done.stat().st_mtime_ns == before
    assert len(set(hashes(tmp_path / "out").values())) == 1


def test_identical_runs_are_done_once(cli, tmp_path):
    code, out, err = cli(
        "-m", *SHORT, "attack.z=1,1.0", "aggregator=median", f"output_dir={tmp_path}"
    )
    assert code == 0, err
    assert "sweep: 1 runs: 1 new" in out


def test_a_folder_that_another_process_holds_is_left_to_it(cli, tmp_path, run):
    from byzshield_exp.results.folder import RunFolder

    run("q=1", folder=tmp_path)
    (held,) = (path for path in tmp_path.iterdir() if path.is_dir())
    folder = RunFolder(held)
    with (held / ".lock").open("a+") as lock:
        folder._hold(lock.fileno())
        code, out, err = cli("-m", *SMALL, "q=1,2", f"output_dir={tmp_path}")
        assert code == 0, err
        assert "sweep: 2 runs: 1 running, 1 new" in out
        assert held.name not in out


@pytest.mark.slow
def test_runs_side_by_side_have_the_same_bits(cli, tmp_path):
    points = ("-m", *SHORT, "q=0,1,2", "approach=mols,detox")
    for runs in (1, 3):
        code, out, err = cli(
            *points, f"hydra.launcher.runs={runs}", f"output_dir={tmp_path}/{runs}"
        )
        assert code == 0, err
    assert hashes(tmp_path / "1") == hashes(tmp_path / "3")
    assert "step 4/4" not in out  # it is in each run's log
    assert out.count("done: test accuracy") == 6
    for log in (tmp_path / "3").glob("*/log.txt"):
        assert log.read_text().count("step 4/4") == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_processes_in_a_sweep(cli, tmp_path, launcher):
    code, _, err = cli(
        "-m", *SHORT, "q=1,2", f"hydra/launcher={launcher}", "cluster=processes",
        "cluster.num_processes=3", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert code == 0, err
    cli("-m", *SHORT, "q=1,2", f"output_dir={tmp_path}/alone")
    assert set(hashes(tmp_path / "out").values()) == set(hashes(tmp_path / "alone").values())


@pytest.mark.slow
def test_another_launcher_fails_points_too(cli, tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "crashing", raising=False)  # of another test
    code, _, _ = cli(
        "-m", *SHORT, "attack._target_=crashing.forge", "+attack.how=raise,fine",
        "hydra/launcher=basic", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert code == 1
    assert [row["state"] for row in manifest(tmp_path / "out").values()] == ["failed", "done"]


def test_an_error_of_a_rule_is_in_the_log(cli, tmp_path, monkeypatch):
    (tmp_path / "rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    code, _, _ = cli(
        "-m", *SHORT, "aggregator=mean", "aggregator._target_=rules.rule",
        "+aggregator.how=late,fine", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert code == 1
    (failed,) = (s for s in states(tmp_path / "out").values() if s["state"] == "failed")
    log = Path(failed["log"]).read_text()
    assert "a ValueError of the user's" in failed["error"]
    assert "in rule" in log
    assert f"failed: {failed['error']}" in log
