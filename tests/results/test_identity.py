"""What is the same run: its data and the user's own code, wherever they are and as they are now."""

import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from running import SMALL, modules_in, run_program
from sweeping import manifest, said

from byzshield_exp.results import load
from byzshield_exp.results.sources import own_sources

RULE = "from my_parts import sums\n\ndef middle(rows, num_corrupt: int):\n    {body}\n"
OWN = ("aggregator=mean", "aggregator._target_=my_rules.middle")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a module of the user's: ``written(name, text)``; this process reads it again."""
    monkeypatch.syspath_prepend(tmp_path / "own")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own").mkdir()

    def write(name, text):
        path = tmp_path / "own" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        for module in [one for one in sys.modules if one.partition(".")[0].startswith("my_")]:
            del sys.modules[module]

    yield write
    for module in [one for one in sys.modules if one.partition(".")[0].startswith("my_")]:
        del sys.modules[module]


@pytest.mark.slow
def test_an_edited_rule_is_run_again_under_its_own_name(cli, run, tmp_path, written):
    written("my_parts/__init__.py", "")
    written("my_parts/sums.py", "def total(rows): return rows.mean(dim=0)\n")
    written("my_rules.py", RULE.format(body="return sums.total(rows)"))
    first, where = run(*OWN), f"output_dir={tmp_path}/outputs"
    (folder,) = (tmp_path / "outputs").iterdir()
    assert folder.name.startswith("aggregator=my_rules.middle,dataset=synthetic")
    choices = yaml.safe_load((folder / "config.yaml").read_text())["choices"]
    assert choices["aggregator"] == "my_rules.middle"
    assert load(folder).runs["aggregator"].tolist() == ["my_rules.middle"]
    _, out, _ = cli(*SMALL, *OWN, where)
    assert out.startswith("mols + my_rules.middle: ")
    assert "\nfinished: " in out
    written("my_parts/sums.py", "def total(rows): return rows.median(dim=0).values\n")
    (folder / "notes.txt").write_text("of the user's")
    changed = "(its code changed: my_parts/sums.py)"
    _, out, _ = cli("-m", *SMALL, *OWN, where, "seed=0", "plan=true")
    assert f"{folder.name} {changed}" in out
    _, out, _ = cli(*SMALL, *OWN, where, "steps=8")
    assert f"new {changed}: {folder}" in out
    again = summary_of_folder(folder)
    assert (again["steps"], summary_of_folder(folder / "replaced")) == (8, first)
    assert again["parameters_sha256"] != first["parameters_sha256"]
    assert len(list(folder.glob("events*"))) == 1
    assert (folder / "notes.txt").exists()


def summary_of_folder(folder):
    return json.loads((folder / "summary.json").read_text())


def test_the_sources_are_what_is_imported_of_the_users(written, tmp_path):
    written("my_package/__init__.py", "from .inner import rule")
    written("my_package/inner.py", "import json, numpy\ndef rule(rows): import my_late.deep\n")
    written("my_late/__init__.py", "")
    written("my_late/deep.py", "from . import other\nimport my_missing")
    written("my_late/other.py", "import my_package")
    written("my_bystander.py", "")
    matrix = tmp_path / "own" / "matrix.csv"
    matrix.write_text("1,0")
    config = {"aggregator": {"_target_": "my_package.rule"}, "approach": {"path": str(matrix)}}
    found = own_sources(config)
    modules = ["my_late/__init__.py", "my_late/deep.py", "my_late/other.py"]
    assert [*found] == [*modules, "my_package/__init__.py", "my_package/inner.py", "approach.path"]
    matrix.write_text("0,1")
    assert [key for key in found if own_sources(config)[key] != found[key]] == ["approach.path"]
    ours = {"attack": {"_target_": "byzshield_exp.attacks.alie", "z": 1.0}, "device": "cpu"}
    assert own_sources(ours) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param((), marks=pytest.mark.thorough),
        ("cluster=processes", "cluster.num_processes=3"),
    ],
)
def test_code_that_changes_after_the_description_is_not_run(tmp_path, cluster):
    """A job waits in a queue, or another machine has another copy."""
    (tmp_path / "my_rules.py").write_text("def middle(rows, num_corrupt): return rows[0]\n")
    where = modules_in(tmp_path)
    options = ("-m", *SMALL, *OWN, *cluster, f"output_dir={tmp_path}/out")
    assert run_program(*options, **where).returncode == 0
    (job,) = tmp_path.glob("out/*/job.json")
    (tmp_path / "my_rules.py").write_text("def middle(rows, num_corrupt): return 2 * rows[0]\n")
    shutil.rmtree(job.parent / "checkpoints")
    done = run_program("job", str(job), **where)
    assert done.returncode == 2
    assert "my_rules.py is another one here and now" in done.stderr


def images(folder, seed):
    draw = np.random.default_rng(seed)
    folder.mkdir()
    content = {
        f"{part}_{kind}": draw.integers(0, top, (60, *shape), dtype=np.uint8)
        for part in ("train", "test")
        for kind, top, shape in (("images", 256, (8, 8)), ("labels", 3, ()))
    }
    np.savez(folder / "own.npz", **content)


@pytest.mark.slow
def test_data_elsewhere_are_the_same_data_and_others_are_not(cli, tmp_path):
    for name, seed in (("a", 0), ("copy", 0), ("other", 1)):
        images(tmp_path / name, seed)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    options = (*SMALL[1:], "dataset=npz", f"output_dir={tmp_path}/out", "batch_size=50")
    for number, name in enumerate(("a", "link", "copy")):
        file = f"dataset.file={tmp_path}/{name}/own.npz" if number else "dataset.file=own.npz"
        code, out, err = cli(*options, file, *([] if number else [f"dataset.root={tmp_path}/a"]))
        assert code == 0, err
        assert ("\nfinished: " in out) == (number > 0)
    (folder,) = (tmp_path / "out").iterdir()
    assert str(tmp_path)[1:].replace("/", "_") not in folder.name
    roots = ",".join(str(tmp_path / name) for name in ("a", "link", "other"))
    given = ("-m", *options, "dataset.file=own.npz", f"dataset.root={roots}", "plan=true")
    code, out, err = cli(*given)
    assert code == 0, err
    assert said(out)[-1].startswith("plan: 2 runs: 1 done, 1 new; ")


@pytest.mark.slow
def test_overwrite_removes_what_the_run_has_written_and_nothing_else(cli, run, tmp_path):
    first, where = run(), f"output_dir={tmp_path}/outputs"
    (folder,) = (tmp_path / "outputs").iterdir()
    (folder / "notes.txt").write_text("of the user's")
    (folder / "checkpoints" / "step_00000004.pt").write_bytes(b"damaged")
    events = next(folder.glob("events*"))
    code, _, err = cli(*SMALL, where, "seed=0")
    assert (code, "overwrite=true" in err) == (2, True)
    for plan in ((*SMALL, "plan=true"), ("-m", *SMALL, "seed=0", "plan=true")):
        _, out, _ = cli(*plan, where, "overwrite=true")
        assert "(overwrite=true)" in out
        assert events.exists()
    assert run("overwrite=true")["parameters_sha256"] == first["parameters_sha256"]
    assert not events.exists()
    assert (folder / "notes.txt").exists()
    assert json.loads((folder / "status.json").read_text())["attempts"] == 1


@pytest.mark.slow
def test_a_sweep_overwrites_once_however_often_its_jobs_start(cli, tmp_path):
    points = ("-m", *SMALL, "seed=0,1", f"output_dir={tmp_path}")
    for _ in range(2):
        code, _, err = cli(*points, "overwrite=true")
        assert code == 0, err
        assert {row["attempts"] for row in manifest(tmp_path).values()} == {"1"}
    for job in tmp_path.glob("*/job.json"):
        assert json.loads(job.read_text())["config"]["overwrite"] is False


def test_a_restart_by_torchrun_does_not_overwrite_what_was_done_since(plain_config, monkeypatch):
    assert plain_config("overwrite=true")["overwrite"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not plain_config("overwrite=true")["overwrite"]


@pytest.mark.slow
def test_a_folder_that_is_held_is_not_overwritten(tmp_path):
    endless = (*SMALL, "steps=1000000", f"output_dir={tmp_path}")
    command = [sys.executable, "-m", "byzshield_exp", *endless]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as held:
        try:
            while "new: " not in held.stdout.readline():
                assert held.poll() is None
            (folder,) = tmp_path.iterdir()
            done = run_program(*endless, "overwrite=true")
            assert (done.returncode, "in use by another process" in done.stderr) == (2, True)
            done = run_program("-m", *endless, "overwrite=true")
            assert "1 running" in done.stdout
            assert (folder / "metrics.jsonl").exists()
        finally:
            held.kill()


@pytest.mark.slow
def test_a_curve_is_called_by_its_name_and_what_is_added_to_it(cli, tmp_path):
    curve = ("experiment=byzshield/fig02", "hydra.sweeper.only=[detox_q3]", "scale=smoke")
    code, out, err = cli(*curve, "seed=0,1", "plan=true", f"output_dir={tmp_path}")
    assert code == 0, err
    first = "detox_q3,byzshield_fig02,scale=smoke"
    assert [line for line in said(out) if line.startswith("new: ")] == [
        f"new: {first}", f"new: {first},seed=1",
    ]  # fmt: skip
    code, _, err = cli(*SMALL, "curve=detox_q3", f"output_dir={tmp_path}")
    assert (code, "curve=detox_q3: leave it out" in err) == (2, True)


@pytest.mark.slow
def test_the_name_of_a_curve_is_a_column(cli, tmp_path):
    curves = {"weak": "q=1 attack.z=0.5", "strong": "q=2 attack.z=2.0"}
    given = [f"+hydra.sweeper.curves.{name}='{curve}'" for name, curve in curves.items()]
    code, out, err = cli("-m", *SMALL, *given, "seed=0,1", f"output_dir={tmp_path}")
    assert code == 0, err
    assert [line.split()[0] for line in said(out) if "2 done" in line] == ["weak", "strong"]
    runs = load(tmp_path).runs
    assert sorted(runs["curve"]) == ["strong", "strong", "weak", "weak"]
    assert all(
        name.startswith(curve) for name, curve in zip(runs["name"], runs["curve"], strict=True)
    )
