"""What a stranger gets: a wheel with its configuration."""

import os
import re
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


@pytest.mark.slow
def test_an_installation_says_what_it_does_and_why_it_failed(tmp_path):
    """Without an index there is no torch to be had: the phase, its reason, its exit code."""
    done = subprocess.run(
        [ROOT / "scripts" / "install.sh", tmp_path / "env"], capture_output=True, text=True,
        timeout=280,
        env={
            **os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1", "CPU": "1",
            "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(tmp_path),
        },
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    begun = [line for line in lines if line.endswith(" ...")]
    assert begun[0].startswith("1/4 environment ")
    assert [line[:3] for line in begun] == ["1/4", "2/4", "3/4"]
    assert begun[2] == "3/4 torch (for CPUs) ..."
    assert re.search(r"^  done, \d+ s$", done.stdout, re.MULTILINE)
    assert "No matching distribution found for torch" in done.stderr
    assert re.search(r"^3/4 torch .* failed after \d+ s, exit code 1$", done.stderr, re.MULTILINE)


def test_a_release_is_tagged_and_described_as_what_it_is():
    """What release.yml compares is where it looks, and the version stands in one place."""
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    source = (ROOT / "byzshield_exp" / "__init__.py").read_text()
    (line,) = re.findall(r"sed -n '(s/.*/p)' byzshield_exp/__init__.py", workflow)
    found = subprocess.run(
        ["sed", "-n", line, ROOT / "byzshield_exp" / "__init__.py"], capture_output=True, text=True
    ).stdout.strip()
    assert f'__version__ = "{found}"' in source
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "\n## [Unreleased]\n" in changelog or f"\n## [{found}]" in changelog
    assert found not in (ROOT / "CITATION.cff").read_text().replace("cff-version: 1.2.0", "")
    assert "scripts/check_install.sh dist" in workflow
