"""The bits of fifty short runs: no change of structure may alter one.

A commit that alters some on purpose changes nothing else, names the runs and gives the reason.
Elsewhere than on a machine of the table, the tree is compared with the commit that wrote the table.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from goldens.runs import RUNS, TABLE, here

ROOT = Path(__file__).parents[2]
SHARES = 4  # tests, so that several can run at a time
KNOWN = json.loads(TABLE.read_text())


def results_of(tree: Path, names, out: Path):
    done = subprocess.run(
        [sys.executable, str(tree / "tests/goldens/runs.py"), str(out), *names],
        env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.fixture(scope="session")
def tree_of_the_table(tmp_path_factory):
    """The commit that wrote the table, checked out beside this one."""

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    folder = tmp_path_factory.mktemp("table") / "tree"
    try:
        commit = git("log", "-1", "--format=%H", "--", str(TABLE))
        assert commit
        git("worktree", "add", "--detach", str(folder), commit)
    except (OSError, subprocess.CalledProcessError, AssertionError):
        pytest.skip("neither this machine is in the table, nor is the commit that wrote it here")
    yield folder
    git("worktree", "remove", "--force", str(folder))


@pytest.mark.parametrize("share", range(SHARES))
def test_no_bit_has_changed(share, request, record_property, tmp_path):
    names = list(RUNS)[share::SHARES]
    if here() in KNOWN:
        expected, against = KNOWN[here()], "the table"
    else:
        expected = results_of(
            request.getfixturevalue("tree_of_the_table"), names, tmp_path / "before"
        )
        against = "the commit of the table"
    names = [name for name in names if name in expected]  # a new run is not in it yet
    found = results_of(ROOT, names, tmp_path / "now")
    changed = [name for name in names if found[name] != expected[name]]
    record_property("goldens", [len(names), against])
    assert not changed, f"{changed} end with other bits than in {against}"
