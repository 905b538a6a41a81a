"""``byzshield distortion``."""

import csv
import io
import json
import re
import subprocess
import sys

import pytest

from byzshield_exp.commands.distortion import answer, main
from byzshield_exp.distortion.report import spell

KEYS = [
    "q", "c_max", "upper_bound", "exact", "epsilon_hat", "epsilon_baseline", "epsilon_frc",
    "gamma", "lower_bound_any", "workers", "seconds",
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("q", ["q=[3,4,5]", "q=3-5", "q=3,4,5"])
def test_json_is_a_list_with_the_keys(q):
    rows = json.loads(answer(["approach=mols", "K=35", "r=5", q, "format=json"]))
    assert [list(row) for row in rows] == [KEYS] * 3
    assert [row["q"] for row in rows] == [3, 4, 5]
    assert [row["c_max"] for row in rows] == [1, 1, 2]
    assert rows[2]["epsilon_hat"] == pytest.approx(2 / 49)
    assert rows[2]["epsilon_baseline"] == pytest.approx(5 / 35)
    assert rows[2]["epsilon_frc"] == pytest.approx(5 / 35)
    assert all(row["exact"] and row["upper_bound"] == row["c_max"] for row in rows)


@pytest.mark.slow
def test_the_program_prints_only_the_list():
    done = subprocess.run(
        [sys.executable, "-m", "byzshield_exp", "distortion", "K=15", "r=3", "q=2-7",
         "format=json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert [row["c_max"] for row in json.loads(done.stdout)] == [1, 3, 5, 8, 12, 14]
    assert done.stderr == ""


def test_every_format_says_the_same():
    where = ["approach=mols", "K=15", "r=3", "q=2-4"]
    rows = list(csv.DictReader(io.StringIO(answer([*where, "format=csv"]))))
    assert [row["c_max"] for row in rows] == ["1", "3", "5"]
    assert [row["workers"] for row in rows] == ["0 5", "0 5 11", "0 1 5 11"]
    table = answer(where).partition("\n\n")[0].splitlines()
    assert [line.split()[1] for line in table[1:]] == ["1", "3", "5"]
    markdown = answer([*where, "format=markdown"]).splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in markdown)
    assert len({line.count("|") for line in markdown}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["q=2", "recommend q=2", pytest.param("tables", marks=pytest.mark.thorough)]
)
def test_every_column_of_a_table_is_explained(command):
    *tables, legend = answer(command.split()).split("\n\n")
    explained = {name for line in legend.splitlines() for name in line.split("  ")[0].split(", ")}
    heads = [line for table in tables for line in table.splitlines() if " eps_hat" in line]
    columns = {name for head in heads for name in re.split(" {2,}", head.strip())}
    columns = {part for name in columns for part in name.split(" (")[0].split(", ")}
    assert columns - explained <= {"q", "approach"}, columns - explained


def test_several_placements_and_a_plot(tmp_path):
    rows = json.loads(
        answer(["approach=mols,steiner", "K=15", "q=2-4", "format=json", f"plot={tmp_path}/a.png"])
    )
    assert [row["approach"] for row in rows] == ["mols"] * 3 + ["steiner"] * 3
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    answer(["K=15", "q=2-4", f"plot={tmp_path}/new/a.svg"])
    drawing = (tmp_path / "new" / "a.svg").read_text()
    assert "Byzantine workers q" in drawing
    assert "share of files won by the worst q workers" in drawing


def test_recommend_marks_the_best_and_says_when_the_baseline_is_better():
    table, _, _ = answer(["recommend", "K=25", "r=5", "q=5"]).partition("\n\n")
    lines = table.splitlines()
    (best,) = [line for line in lines if line.startswith("*")]
    assert best.split()[1:] == ["affine_plane", "30", "6", "5", "2", "0.067"]
    assert not any("plain baseline" in line for line in lines)
    table, _, _ = answer(["recommend", "K=15", "r=3", "q=7"]).partition("\n\n")
    lines = table.splitlines()
    assert "the plain baseline, r=1, is better than mols" in lines[-1]


@pytest.mark.slow
def test_the_papers_tables_are_reproduced_and_their_misprint_marked():
    text = answer(["tables"])
    marked = [line for line in text.splitlines() if "*" in line and not line.startswith("*")]
    assert len(marked) == 11  # the baseline column of Table 5, and nothing else
    assert all(line.count("*") == 1 for line in marked)
    assert "printed as q/25 instead of q/35" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["q=-1"], "q=-1 must lie between 0 and K=15"),
        (["q=16"], "q=16 must lie between 0 and K=15"),
        (["q=some"], "q=some must be a number, a list [3,4,5] or a range 3-13"),
        (["q=5-3"], "q=5-3 is an empty range"),
        (["time_limit=0"], "time_limit=0 must be a finite number of seconds above 0"),
        (["time_limit=inf"], "time_limit=inf must be a finite number"),
        (["q=1-99999999999999"], "is a range of more than 10000 numbers"),
        (["tables", "format=xml"], "format=xml: tables takes no arguments"),
        (["recommend", "q=3-5"], "recommend prints a table for one q"),
        (["recommend", "q=3", "format=json"], "recommend prints a table for one q"),
        (["recommend", "K=-5"], "K=-5 r=3 must be at least 1"),
        (["approach=ramanujan_two", "K=-5"], "K=-5"),
        (["approach=projective_plane", "K=0"], "K=0"),
        (["approach=random", "approach.placement_seed=-1"], "placement_seed=-1"),
        (["time_limit=soon"], "time_limit=soon must be"),
        (["format=xml"], "format=xml must be one of table, json, csv, markdown"),
        (["approach=nope"], "approach=nope: no such choice"),
        (["K=18"], "nearest are K=15 (l=5), K=21 (l=7)"),
        (["K=abc"], "could not be converted to Integer"),
        (["kk=3"], "unknown key kk"),
        (["recommand", "K=15"], "recommand: no such command"),
        (["K=15", "r"], "r: arguments are key=value"),
        (["approach=custom"], "approach.path is not given"),
        (["approach=custom", "approach.path=no.npy"], "approach.path=no.npy cannot be read"),
        (["plot=pyproject.toml/x.png"], "plot=pyproject.toml/x.png cannot be written"),
        (["plot=eps.jpg"], "plot=eps.jpg must end in svg, pdf, png"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_help_is_the_modules_text():
    assert "recommend K=25 r=5 q=5" in answer([])


@pytest.mark.slow
def test_importing_the_package_imports_nothing_slow():
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import byzshield_exp.training.loop, byzshield_exp.distortion, byzshield_exp.assignments\n"
        "slow = {'numba', 'galois', 'scipy', 'altair', 'sklearn', 'hydra', 'pandas'}\n"
        "print(sorted(slow & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_run_with_many_workers_uses_the_search(tmp_path):
    from running import SMALL, run_program, summary_of

    options = (*SMALL, "K=35", "r=5", "q=10", "batch_size=49", f"output_dir={tmp_path}")
    done = run_program(*options, timeout=120)
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path)
    assert summary["num_corrupt"] == 11
    assert len(summary["byzantine"]) == 10


def test_a_run_takes_the_upper_bound_of_an_ended_search_and_warns(cli, tmp_path, monkeypatch):
    from running import SMALL, summary_of

    from byzshield_exp.distortion import WorstCase
    from byzshield_exp.training import experiment

    ended = WorstCase(tuple(range(5)), 7, 9, False)
    monkeypatch.setattr(experiment, "worst_case", lambda assignment, q: ended)
    code, _, err = cli(*SMALL, "q=5", "attack=constant", f"output_dir={tmp_path}")
    assert code == 0
    assert "win 7 to 9 files, the search was ended: num_corrupt=9" in err
    assert summary_of(tmp_path)["num_corrupt"] == 9


@pytest.mark.slow
def test_a_bound_is_printed_as_one_that_holds():
    (row,) = json.loads(answer(["approach=mols", "K=63", "r=7", "q=20", "time_limit=0.2",
                                "format=json"]))  # fmt: skip
    assert not row["exact"]
    for bound in (row["epsilon_hat"], 0.00033, 0.083, 0.0831):
        (printed,) = re.findall(r"<= (\d\.\d{3})", spell([row | {"epsilon_hat": bound}], "table"))
        assert bound <= float(printed) < bound + 0.001
