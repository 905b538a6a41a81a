"""What a terminal shows while a sweep runs."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import pytest
from rich.console import Console
from sweeping import SHORT

from byzshield_exp.launch.bars import Bars


def drawn(text):
    """The lines without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r", "\n"))


@pytest.mark.parametrize("is_shown", [True, False])
def test_each_current_run_has_a_bar_with_its_steps_and_accuracy(tmp_path, is_shown):
    folders = [tmp_path / name for name in ("attack=alie,q=1", "attack=alie,q=2", "attack=alie")]
    folders[1].mkdir()
    records = [{"step": 2, "test_accuracy": 0.25}, {"step": 3}]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folders[1] / "metrics.jsonl").write_text(text)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bars = Bars(folders, is_shown, console)
    with bars.shown():
        bars.end(folders[0])  # it was finished already
        for folder in folders[1:]:
            bars.begin(folder, steps=4)
        bars.update()
    shown = drawn(console.file.getvalue())
    for line in (
        r"sweep +━[━╸╺ ]+ 1/3 +runs, +0 s +about 0 s left",
        r"q=2 +━[━╸╺ ]+ 3/4 +steps, +0 s +test accuracy 0.2500",
        r"default +━[━╸╺ ]+ 0/4 +steps, +0 s",
    ):
        assert bool(re.search(line, shown)) == is_shown, shown
    assert bool(shown) == is_shown


@pytest.mark.slow
def test_a_sweep_on_a_terminal(tmp_path):
    """The runs say nothing between the bars, and each has one line when it ends."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "byzshield_exp", "-m", *SHORT, "q=1,2", "eval_every=2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    sweep = subprocess.Popen(
        [*command, f"output_dir={tmp_path}"], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # Linux, when nobody has it open any more
        while chunk := os.read(ours, 1 << 16):
            said += chunk
    os.close(ours)
    assert sweep.wait() == 0
    shown = drawn(said.decode())
    assert re.search(r"q=1 +━+ 0/4 +steps", shown), shown
    assert shown.count("done: test accuracy") == 2
    assert "step 2/4" not in shown
    assert "runs over" not in shown
    assert shown.strip().endswith("2 of 2 done")
