"""The arithmetic of docs/clusters.md: what it says that a step asks of the server, a run counts."""

import re
import sys
from pathlib import Path

import pytest
from running import SMALL, metrics_of, run_program, summary_of

from byzshield_exp.assignments import fractional_repetition, mols, random

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import server_load  # noqa: E402

DOCS = (SCRIPTS.parent / "docs" / "clusters.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("vote", ["digest", pytest.param("majority", marks=pytest.mark.thorough)])
def test_the_closed_form_is_what_a_run_counts(tmp_path, vote):
    cluster = ("cluster=processes", "cluster.num_processes=4", "profile=metrics")
    done = run_program(
        *SMALL, *cluster, "q=0", "attack=none", f"vote={vote}", f"output_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    size = int(re.search(r"d=([\d,]+)", done.stdout)[1].replace(",", ""))
    placement = server_load.Placement("mols", 15, 3, 5)
    load = server_load.load_of(placement, size, vote, 3)
    profile = metrics_of(tmp_path)[2]["profile"]
    assert profile["bytes_in"][0] == load.bytes_in
    assert profile["bytes_out"][0] == load.bytes_out
    assert summary_of(tmp_path)["steps"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("placement", server_load.PLACEMENTS, ids=str)
def test_the_placements_exist(placement):
    if placement.name == "random":
        made = random(placement.num_workers, placement.replication, placement.load)
    else:
        function = {"mols": mols, "fractional_repetition": fractional_repetition}[placement.name]
        made = function(placement.num_workers, placement.replication)
    assert (made.load, made.num_files) == (placement.load, placement.num_files)


def test_seconds_by_hand():
    """125 MB out and 250 MB in at 10 Gbit/s are 0.1 and 0.2 s; at 1,000 the thread is slower."""
    load = server_load.Load(250_000_000, 125_000_000, 100, 0)
    median = 25 * 1000 * 1.04e-9
    assert server_load.seconds_of(load, 25, 1000, "digest", 10.0) == pytest.approx(0.3 + median)
    slow = 0.125 * 0.43 + 0.25 * 0.54 + 0.006
    assert server_load.seconds_of(load, 25, 1000, "digest", 1e3) == pytest.approx(slow + median)
    assert server_load.median_of(10_000) == server_load.MEDIAN[1000]
    assert server_load.MEDIAN[100] < server_load.median_of(150) < server_load.MEDIAN[200]


def test_the_table_of_the_docs_is_what_the_script_prints(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["server_load.py"])
    server_load.main()
    printed = capsys.readouterr().out
    assert printed.strip() in DOCS
