"""What a stranger gets: a wheel with its configuration."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_runs_in_an_empty_folder(tmp_path):
    """Build it, install it alone in a new environment, run it from somewhere else."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True, timeout=280,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "byzshield_exp/conf/config.yaml" in archive.namelist()
        assert "byzshield_exp/commands/completion/byzshield.bash" in archive.namelist()
        assert not [name for name in archive.namelist() if name.startswith(("conf/", "tests/"))]
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    (packages,) = [p for p in map(Path, sys.path) if p.name == "site-packages"][:1]
    (target,) = environment.glob("lib/python*/site-packages")
    # The dependencies from here; an editable install is no dependency.
    (target / "dependencies.pth").write_text(f"{packages}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    script = environment / "bin" / "byzshield"
    arguments = [
        "run",
        "dataset=synthetic",
        "network=mlp",
        "steps=2",
        "cluster=processes",
        "cluster.num_processes=2",
    ]
    where = subprocess.run(
        [python, "-c", "import byzshield_exp; print(byzshield_exp.__file__)"],
        cwd=empty, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(environment) in where.stdout
    done = subprocess.run(
        [script, *arguments], cwd=empty, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert list(empty.glob("outputs/*/summary.json"))


def test_top_level_holds_what_the_project_says():
    for name in ("LICENSE", "Makefile", "conf/config.yaml", "outputs/.gitkeep", ".ci/run"):
        assert (ROOT / name).exists()
