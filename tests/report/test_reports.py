"""Reports of real runs: numbers as a group-by has them, every run named, pictures of paper size."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("altair", reason="needs the extra report")

from running import SMALL

from byzshield_exp.commands import report
from byzshield_exp.results import load

FORMS = ("csv", "md", "pdf", "png", "svg", "tex")
ON_PAPER = (241, 505)  # points: one column of a paper, two


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Small runs: two placements, two numbers of liars, one with two seeds; and one diverges."""
    from byzshield_exp.commands import run

    folder = tmp_path_factory.mktemp("sweep") / "outputs"
    lost = ["approach=baseline", "aggregator=mean", "attack=constant", "attack.value=3e38", "q=2"]
    grid = [[f"approach={name}", f"q={q}"] for name in ("mols", "baseline") for q in (2, 3)]
    before, sys.argv = sys.argv, ["byzshield_exp"]
    try:
        for words in (*grid, ["q=3", "seed=1"], lost):
            assert run.main([*SMALL, "eval_every=2", f"output_dir={folder}", *words]) == 0
    finally:
        sys.argv = before
    return folder


@pytest.fixture
def reported(capsys, tmp_path):
    """Make a report: ``reported(*arguments) -> (its folder, what was said)``."""

    def call(*arguments):
        capsys.readouterr()
        assert report.main([*map(str, arguments), f"out={tmp_path / 'report'}"]) == 0
        return tmp_path / "report", capsys.readouterr().out

    return call


def numbers(path: Path, *columns: str) -> list[list[float]]:
    with path.open() as file:
        return sorted([float(row[name]) for name in columns] for row in csv.DictReader(file))


@pytest.mark.slow
def test_the_numbers_are_those_of_a_group_by(sweep, reported):
    out, _ = reported(sweep, "by=approach,q", "formats=csv")
    runs, steps, _ = load(sweep)
    by = runs.groupby(["approach", "q"])["test_accuracy"]
    expected = [
        pytest.approx(row)
        for row in sorted(by.agg(["mean", "min", "max", "count"]).values.tolist())
    ]
    assert sorted(by.count()) == [1, 1, 2, 2]  # the one that diverged too
    found = numbers(out / "table.csv", "test accuracy", "lowest", "highest", "n")
    assert found == expected
    of_q = numbers(
        out / "figures" / "final_test_accuracy_by_q.csv",
        "test accuracy, mean", "lowest", "highest", "runs",
    )  # fmt: skip
    assert of_q == expected
    whole = runs[(runs["approach"] == "mols") & (runs["q"] == 3)]["folder"]
    curve = steps[steps["folder"].isin(whole)].groupby("step")["test_accuracy"].mean().dropna()
    drawn = numbers(
        out / "figures" / "test_accuracy_by_step.csv", "step", "test accuracy, mean", "runs"
    )
    for step, mean in curve.items():
        assert [step, pytest.approx(mean), 2] in drawn


def test_every_run_that_is_not_done_is_named(sweep, reported, tmp_path):
    every = tmp_path / "every"
    shutil.copytree(sweep, every)
    done = [
        path for path in sorted(every.iterdir()) if path.is_dir() and "constant" not in path.name
    ]
    ends = {
        "failed": {"state": "failed", "error": "rank 2 was killed by signal 9"},
        "stopped": {"state": "running"},
    }
    for path, status in zip(done, ends.values(), strict=False):
        (path / "summary.json").unlink()
        (path / "status.json").write_text(json.dumps(status))
    (every / "sweep.csv").write_text("name,q,state,error\n,9,invalid,q=9 is too many for K=15\n")
    out, said = reported(every, "formats=html")
    page = (out / "report.html").read_text()
    assert "3 of 7 runs are done" in said
    for line in (
        f"failed: {done[0].name} (4 of 4 steps, rank 2 was killed by signal 9)",
        f"stopped: {done[1].name} (4 of 4 steps)",
        "invalid: q=9 (q=9 is too many for K=15)",
        "(NaN or Inf at step ",
    ):
        assert line in said
    for text in ("rank 2 was killed by signal 9", done[1].name, "q=9 is too many", "NaN or Inf"):
        assert text in page
    assert "https://cdn" not in page


def test_one_run_is_a_report_in_every_format(sweep, reported):
    one = next(path for path in sweep.iterdir() if path.name.endswith("seed=1"))
    out, said = reported(one)
    assert "1 of 1 runs are done" in said
    names = {path.stem for path in (out / "figures").glob("[!.]*")}
    assert {"test_accuracy_by_step", "loss_by_step", "epsilon_realised", "time_by_phase"} <= names
    for name in names:
        assert sorted(path.suffix[1:] for path in (out / "figures").glob(f"{name}.*")) == [*FORMS]
        svg = (out / "figures" / f"{name}.svg").read_text()
        width = float(re.search(r'width="([\d.]+)pt"', svg)[1])
        assert any(abs(width - most) <= 12 for most in ON_PAPER), (name, width)
        box = re.search(rb"/MediaBox \[0 0 (\d+)", (out / "figures" / f"{name}.pdf").read_bytes())
        assert int(box[1]) == pytest.approx(width, abs=1)
    epsilon = numbers(out / "figures" / "epsilon_realised.csv", "share of files won by liars, mean")
    (run,) = load(one).runs.to_dict("records")
    assert epsilon == [[pytest.approx(run["epsilon_hat"])]] * 4  # the worst set lies at each step
    (out / "figures" / "mine.png").write_text("")
    reported(one, "formats=csv")
    kept = {path.name for path in (out / "figures").iterdir() if path.suffix != ".csv"}
    assert kept == {".report", "mine.png"}  # nothing stale, and a picture of the user's own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["by=K"], "by=K does not differ between these runs, there are approach"),
        (["metric=accuracy"], "metric=accuracy is unknown, there are"),
        (["formats=html,xls"], "formats=xls must be of html, svg"),
        (["format=svg"], "format=svg is no folder; the keys are by, metric, out, formats; did you"),
        (["out=pyproject.toml/a"], "out=pyproject.toml/a cannot be written"),
    ],
)
def test_bad_input_is_one_line(sweep, capsys, arguments, message):
    assert report.main([str(sweep), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert not (sweep / "report").exists()


def test_without_the_extra_it_says_what_to_install(sweep, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert report.main([str(sweep)]) == 2
    assert "pip install 'byzshield_exp[report]'" in capsys.readouterr().err
