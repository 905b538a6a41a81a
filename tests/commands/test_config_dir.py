"""``--config-dir`` and ``hydra.searchpath``: a file of a name of ours is an error, not ignored."""

import pytest

from byzshield_exp.commands import list as listing
from byzshield_exp.commands.choices import conf_dir


@pytest.mark.parametrize("how", ["--config-dir={}", "-cd {}", "hydra.searchpath=[file://{}]"])
def test_a_file_of_a_name_of_ours_is_refused(cli, tmp_path, how):
    folder = tmp_path / "conf"
    theirs = folder / "aggregator" / "krum.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("_target_: byzshield_exp.aggregators.mean\n")
    code, out, err = cli(*how.format(folder).split(), "q=0", f"output_dir={tmp_path}/out")
    assert code == 2
    assert err.count("\n") == 1
    assert f"{theirs} would be ignored, as {conf_dir()}/aggregator/krum.yaml has its name" in err
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_a_list_refuses_it_too(tmp_path, capsys):
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "alie.yaml").write_text("_target_: mine.forge\n")
    assert listing.main(["attacks", "--config-dir", str(tmp_path)]) == 2
    assert "attack/alie.yaml would be ignored" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_of_a_name_of_its_own_is_a_choice(run, tmp_path):
    (tmp_path / "aggregator").mkdir()
    (tmp_path / "aggregator" / "mine.yaml").write_text("_target_: byzshield_exp.aggregators.mean\n")
    own = run("aggregator=mine", "--config-dir", str(tmp_path), folder=tmp_path / "own")
    ours = run("aggregator=mean", folder=tmp_path / "ours")
    assert own["parameters_sha256"] == ours["parameters_sha256"]
