"""Hydra's callbacks hear of every run, how it ended and what it returned, whoever runs it."""

import sys

import pytest
from callback_notes import install, is_here, noted
from sweeping import CRASHING, SHORT, hashes

BREAKS = ("attack._target_=crashing.forge", "seed=0")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The overrides that ask for the callback, and for an attack that may break."""
    (tmp_path / "crashing.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("crashing", "callback_written"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # of another test
    return (*SHORT, *BREAKS, install(tmp_path), f"output_dir={tmp_path}/out")


@pytest.mark.parametrize("launcher", [pytest.param("local", marks=pytest.mark.slow), "basic"])
def test_a_sweep_of_which_a_point_fails(cli, asked, tmp_path, launcher):
    code, _, err = cli(
        "-m", *asked, f"hydra/launcher={launcher}", "+attack.how=raise,fine", "q=1", "q=2",
    )  # fmt: skip
    assert code == 1, err
    first, failed, second, done = noted(tmp_path)
    assert [one["what"] for one in (first, failed, second, done)] == ["start", "end"] * 2
    assert (failed["status"], done["status"]) == ("FAILED", "COMPLETED")
    assert "a rule of the user's own broke" in failed["value"]
    assert 0 <= float(done["value"]) <= 1
    for note, how in ((first, "raise"), (failed, "raise"), (second, "fine"), (done, "fine")):
        assert is_here(note)
        assert note["q"] == 2  # the point's own configuration
        assert f"+attack.how={how}" in note["task"]
    assert first["task_function"] == "compose_and_run"
    assert done["own_q"] == 2
    assert done["output_dir"] == str(tmp_path / "out")
    (folder,) = (tmp_path / "out" / name for name in hashes(tmp_path / "out"))
    assert done["folder"] == str(folder)
    assert "how=raise" in failed["folder"]
    cli("-m", *asked, "+attack.how=fine", "q=2")
    assert len(noted(tmp_path)) == 4, "a finished run is not run, so not told of"


def test_a_single_run_returns_its_accuracy_and_fails_in_one_line(cli, asked, tmp_path, run):
    summary = run(*asked, "+attack.how=fine", "q=2", folder=tmp_path / "out")
    _, done = noted(tmp_path)
    assert (done["status"], float(done["value"])) == ("COMPLETED", summary["final_test_accuracy"])
    code, _, err = cli(*asked, "+attack.how=raise", "q=2")
    *_, failed = noted(tmp_path)
    assert code == 1
    broke = (
        "byzshield_exp: ArithmeticError: a rule of the user's own broke (crashing.py:8 in forge)"
    )
    assert err.splitlines()[-1].replace(f"{tmp_path}/", "") == broke
    assert "Error executing job" not in err
    assert (failed["status"], failed["value"]) == ("FAILED", "a rule of the user's own broke")
    assert "how=raise" in failed["folder"]


def test_a_run_that_cannot_begin_fails_with_its_reason(cli, asked, tmp_path):
    code, _, err = cli(*asked, "+attack.how=fine", "aggregator=bulyan", "approach=baseline", "q=4")
    *_, failed = noted(tmp_path)
    assert code == 2
    assert err.count("\n") == 1
    assert failed["status"] == "FAILED"
    assert failed["value"] in err
    assert failed["folder"] is None
