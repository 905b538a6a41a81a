"""``docs/library.md``: its blocks print what it says, and its loop is the example, which learns."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "library.md").read_text()
LOOP = ROOT / "examples" / "torch_loop.py"
_BLOCK = re.compile(r"^```(\w+)( file)?\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
BLOCKS = [(kind, text) for kind, is_file, text in _BLOCK.findall(PAGE) if not is_file]
CODE = [text for kind, text in BLOCKS if kind == "python"]
SAID = "".join(text for kind, text in BLOCKS if kind == "text")


def printed(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_blocks_print_what_the_page_says(tmp_path):
    """Those without a run; nothing of Hydra is imported."""
    *blocks, last = CODE
    assert "load(" in last
    end = "\nimport sys\nassert not {'hydra', 'omegaconf'} & set(sys.modules)"
    said = printed("\n".join(blocks) + end, tmp_path)
    assert said
    assert SAID.startswith(said)


@pytest.mark.slow
def test_results_are_loaded(tmp_path):
    (command,) = (text.split() for kind, text in BLOCKS if kind == "sh")
    done = subprocess.run(
        [sys.executable, "-m", "byzshield_exp", *command[1:]],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = printed(CODE[-1], tmp_path)
    assert said
    assert SAID.endswith(said)


def test_the_loop_of_the_page_is_the_example():
    ((_, _, shown),) = (block for block in _BLOCK.findall(PAGE) if block[1])
    assert shown == LOOP.read_text()
    assert len(shown.partition("\nfor step")[2].splitlines()) < 20  # short


@pytest.mark.slow
def test_the_loop_learns_in_spite_of_liars():
    accuracy = float(printed(LOOP.read_text(), LOOP.parent).split()[-1])
    assert accuracy > 0.9
