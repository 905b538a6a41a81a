"""A job file describes a run fully: it is done later, elsewhere, without conf/."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import SHORT, hashes

from byzshield_exp.commands import job as command


@pytest.fixture
def job(capsys):
    """``byzshield job`` in this process: ``job(path) -> (exit code, out, err)``."""

    def call(path: Path) -> tuple[int, str, str]:
        code = command.main([str(path)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.slow
def test_a_job_needs_no_conf(cli, job, tmp_path):
    """What was checked is what runs, wherever and whenever."""
    cli("-m", *SHORT, "q=1,2", f"output_dir={tmp_path}/out")
    (first, _) = sorted((tmp_path / "out").glob("*/job.json"))
    before = hashes(tmp_path / "out")[first.parent.name]
    (first.parent / "summary.json").unlink()
    shutil.rmtree(first.parent / "checkpoints")
    code = (
        "import sys; sys.modules['hydra'] = sys.modules['omegaconf'] = None\n"
        "from byzshield_exp.commands.job import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(first)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "out")[first.parent.name] == before
    code, out, _ = job(first)
    assert code == 0
    assert "finished: " in out


def test_a_job_that_is_none(job, tmp_path):
    (tmp_path / "job.json").write_text("{}")
    code, _, err = job(tmp_path / "job.json")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "cannot be read" in err


@pytest.mark.parametrize("processes", [1, 3])
def test_a_job_with_other_data_is_refused(cli, job, tmp_path, processes):
    cli("-m", *SHORT, "q=1,2", f"output_dir={tmp_path}/out")
    path = sorted((tmp_path / "out").glob("*/job.json"))[0]
    content = json.loads(path.read_text())
    content["data"] = "00" * 32
    content["config"]["output_dir"] = str(tmp_path / "other")
    content["config"]["cluster"]["num_processes"] = processes
    path.write_text(json.dumps(content))
    code, _, err = job(path)
    assert code == 2
    assert "holds other data on this machine" in err


def test_a_job_lies_where_its_output_dir_is(cli, job, tmp_path, monkeypatch):
    """A relative one counts from where the sweep was started, not from where the job is."""
    with monkeypatch.context() as there:
        there.chdir(tmp_path)
        code, _, err = cli("-m", *SHORT, "q=1,2", "output_dir=here")
        assert code == 0, err
    (path, _) = (tmp_path / "here").glob("*/job.json")
    _, out, _ = job(path)
    assert "finished: " in out
    assert not Path("here").exists()
