"""The bits of fifty short runs: no change of structure may alter one.

A commit that alters some on purpose changes nothing else, names the runs, gives the reason, and
raises ``generation`` in the table. Elsewhere than on a machine of the table, the tree is compared
with the commit that raised it last (the one that added the table, while there is none).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from goldens.runs import RUNS, TABLE, here

ROOT = Path(__file__).parents[2]
RUNS_FILE = "tests/goldens/runs.py"
SHARES = 9  # tests, so that several can run at a time; one is no slow one
KNOWN = json.loads(TABLE.read_text())


def results_of(tree: Path, names, out: Path):
    done = subprocess.run(
        [sys.executable, str(tree / RUNS_FILE), str(out), *names],
        env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.fixture(scope="session")
def tree_of_the_table(tmp_path_factory):
    """The tree whose code made the values: the commit that last raised the table's generation."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True)
        return done.stdout

    folder = tmp_path_factory.mktemp("table")
    try:
        raised = git("log", "-1", "--format=%H", "-G", '"generation": ', "--", str(TABLE))
        added = git("log", "--diff-filter=A", "--format=%H", "--", str(TABLE))
        content = git("archive", (raised or added).decode().split()[-1])
    except (OSError, subprocess.CalledProcessError, IndexError):
        pytest.skip("neither this machine is in the table, nor is the commit that made it here")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=content, check=True)
    return folder


@pytest.mark.parametrize(
    "share", [0, *(pytest.param(share, marks=pytest.mark.slow) for share in range(1, SHARES))]
)
def test_no_bit_has_changed(share, request, record_property, tmp_path):
    names = list(RUNS)[share::SHARES]
    if here() in KNOWN:
        expected, against = KNOWN[here()], "the table"
    else:
        tree = request.getfixturevalue("tree_of_the_table")
        known = [name for name in names if f'"{name}": ' in (tree / RUNS_FILE).read_text()]
        expected = results_of(tree, known, tmp_path / "before")
        against = "the commit of the table"
    new = [name for name in names if name not in expected]
    names = [name for name in names if name in expected]
    found = results_of(ROOT, names, tmp_path / "now")
    changed = [name for name in names if found[name] != expected[name]]
    record_property("goldens", [len(names), against, len(new)])
    assert not changed, f"{changed} end with other bits than in {against}"
