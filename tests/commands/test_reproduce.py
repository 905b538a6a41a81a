"""``byzshield reproduce``: ours beside the papers'."""

import csv
import json
import re
from pathlib import Path

import pytest
import yaml
from picture_files import write_npz

from byzshield_exp.commands import application
from byzshield_exp.commands.reproduce import main
from byzshield_exp.commands.reproduce.comparison import Comparison
from byzshield_exp.commands.reproduce.contents import named
from byzshield_exp.commands.reproduce.measured import MeasuredRun
from byzshield_exp.commands.reproduce.published import SCALES, figures

CONF = Path(__file__).parents[2] / "conf"


def test_every_experiment_of_a_paper_is_a_figure_and_every_value_is_of_a_curve():
    folders = ("byzshield", "detox", "l46", "btard")
    there = {
        f"{one}/{path.stem}" for one in folders for path in (CONF / "experiment" / one).iterdir()
    }
    assert {figure.experiment for figure in figures().values()} == there
    assert named("byzshield") == [f"table{n}" for n in range(3, 7)] + [
        f"fig{n:02d}" for n in range(2, 13)
    ]
    for figure in figures().values():
        assert {*figure.values} <= {*figure.curves}
        assert all({*read} <= {*figure.measures} for read in figure.values.values())
        assert all((CONF / f"scale/{figure.scales[scale]}.yaml").exists() for scale in SCALES)
        if figure.group == "byzshield":
            assert {*figure.curves} == {*figure.values, *figure.phases}


def test_the_comments_of_the_experiments_have_the_same_values():
    """Of figure 2: "ByzShield 65.4 and 45.1 % (q=3, 5), DETOX 48.7 and 21.1, median 38.8 ..."."""
    values = figures()["fig02"].values
    text = (CONF / "experiment/byzshield/fig02.yaml").read_text()
    for scheme, written in {"byzshield": (65.4, 45.1), "detox": (48.7, 21.1)}.items():
        assert f"{written[0]} and {written[1]}" in text
        found = [100 * values[f"{scheme}_q{q}"]["final"].mean for q in (3, 5)]
        assert found == pytest.approx(written)


def test_table_5_is_printed_with_its_misprinted_column_named(capsys, tmp_path):
    assert main(["table5", f"out={tmp_path}"]) == 0
    out, _ = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert ["3", "1", "/", "1", "0.02", "/", "0.020", "0.12", "/", "0.086", "*"] in [
        line[:11] for line in lines
    ]
    assert ["baseline", "0", "of", "11", "0.149"] in lines
    assert "* the print is wrong: the baseline column is printed as q/25 instead of q/35" in out
    assert (tmp_path / "table5.md").read_text().startswith("### Table 5")


def run_of(curve, seed, final, state="done"):
    values = {} if final is None else dict.fromkeys(("final", "best", "last5"), final)
    return MeasuredRun(
        Path(f"{curve}_{seed}"), curve, seed, state, "", None, (), values, {}, 1.0, {}
    )


def test_the_order_of_curves_worked_by_hand():
    """In the paper ByzShield (65.7) before Multi-Krum (45.4) before DETOX (35.9)."""
    runs = (
        run_of("byzshield_q2", 0, 0.90), run_of("byzshield_q2", 1, 0.94),
        run_of("multi_krum_q2", 0, 0.70), run_of("multi_krum_q2", 1, None, "failed"),
        run_of("detox_q2", 0, 0.88), run_of("detox_q2", 1, 0.91),
    )  # fmt: skip
    comparison = Comparison(figures()["fig11"], "smoke", runs)
    entry = comparison.entries["byzshield_q2", "final"]
    assert (entry.ours.lowest, entry.ours.highest) == (0.90, 0.94)
    assert entry.difference == pytest.approx(0.92 - 0.657)
    assert comparison.order == (
        "Pairs of curves that are apart in the paper: 3. Here 1 are in the same order, 1 too "
        "close, 1 the other way: DETOX-Multi-Krum, q = 2 before Multi-Krum, q = 2."
    )
    assert comparison.missing == ["Multi-Krum, q = 2, seed 1: failed"]
    assert comparison.states("multi_krum_q2") == "1 done, 1 failed"


@pytest.mark.slow
def test_a_figure_is_run_compared_and_found_again(capsys, tmp_path):
    page = tmp_path / "docs" / "results.md"
    small = ["steps=15", "eval_every=5", "optimizer.lr=0.1"]
    typed = ["fig10", *small, f"output_dir={tmp_path}", f"docs={page}"]
    assert main(typed) == 0
    out, err = capsys.readouterr()
    assert "2 new" in out, err
    with (tmp_path / "reproduced" / "fig10.csv").open() as file:
        rows = {(row["curve"], row["measure"]): row for row in csv.DictReader(file)}
    for path in tmp_path.glob("*/summary.json"):
        config = yaml.safe_load(path.with_name("config.yaml").read_text())
        curve = {"mols": "byzshield_q2", "baseline": "bulyan_q2"}[config["choices"]["approach"]]
        final = json.loads(path.read_text())["final_test_accuracy"]
        assert float(rows[curve, "final"]["ours"]) == pytest.approx(final, rel=1e-5)
    assert len({row["ours"] for row in rows.values()}) > 2
    assert float(rows["bulyan_q2", "final"]["paper"]) == pytest.approx(0.4)
    text = page.read_text()
    assert "### Figure 10" in text
    pictures = re.findall(r"\]\((results/.+)\)", text)
    assert pictures == ["results/byzshield_overview.svg", "results/fig10.svg"]
    drawing = (page.parent / pictures[1]).read_text()
    assert "ByzShield, q = 2" in drawing
    assert (tmp_path / "reproduced" / "fig10_values.png").read_bytes()[:4] == b"\x89PNG"
    assert "Figure 10" in (tmp_path / "reproduced" / "reproduced.html").read_text()
    assert main([*typed, "plan=true"]) == 0
    assert "plan: 2 runs: 2 done" in capsys.readouterr().out


BAD = {
    "fig1": "fig1: no figure or table of that name; did you mean",
    "l46/mild": "l46/mild at scale=smoke: give the folder of the data, dataset.root=FOLDER",
    "fig02 scale=tiny": "scale=tiny must be one of smoke, thin, paper",
    "fig02 steps": "steps: arguments are key=value",
    "fig02 -m": "unknown option -m",
    "fig10 sede=1": "unknown key sede; did you mean 'seed'?",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_input_is_one_line(capsys, typed):
    assert main(typed.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert BAD[typed] in line


@pytest.mark.slow
def test_byzshields_figures_at_a_very_small_size(capsys, tmp_path):
    names = "tables,fig05,fig08,fig12"
    page = tmp_path / "results.md"
    code = main(
        [names, "steps=2", "eval_every=1", f"output_dir={tmp_path}", "hydra.launcher.runs=2",
         f"docs={page}"]
    )  # fmt: skip
    _, err = capsys.readouterr()
    assert code == 0, err
    assert len([*tmp_path.glob("*/summary.json")]) == 6 + 8 + 3
    text = page.read_text()
    assert text.count("\n### ") == 4 + 3
    assert "Missing" not in text
    assert yaml.safe_load((CONF / "scale/smoke.yaml").read_text())["steps"] > 2


@pytest.mark.slow
def test_runs_on_data_of_ones_own_are_found_too(cli, tmp_path, monkeypatch):
    """Their folders are named by the data, which a configuration does not tell."""
    write_npz(tmp_path / "mine.npz")
    monkeypatch.setattr(application, "swept", [])
    code, out, err = cli(
        "experiment=byzshield/fig09", "hydra.sweeper.only=[byzshield_q2,detox_q2]", "scale=smoke",
        "dataset=npz", f"dataset.root={tmp_path}", "dataset.file=mine.npz", "network=mlp",
        "batch_size=25", "plan=true", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert code == 0, err
    planned = [line.removeprefix("new: ") for line in out.splitlines() if line.startswith("new: ")]
    assert len(planned) == 2
    assert [(curve, folder.name) for curve, folder in application.swept] == [
        (name.partition(",")[0], name) for name in planned
    ]
    assert all(",data=" in name for name in planned)
