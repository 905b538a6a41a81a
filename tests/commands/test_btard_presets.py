"""The presets of BTARD and L46: what they set, and that each of their curves can be run."""

import json
from pathlib import Path

import pytest
import yaml
from picture_files import idx

CONF = Path(__file__).parents[2] / "conf"
L46 = ("none", "sign_flip", "random_direction", "label_flip", "label_shuffle", "scalar_noise")
FIGURES = {
    "fig_none": "none",
    "fig_sign_flip": "sign_flip",
    "fig_delayed": "delayed_gradient",
    "fig_label_flip": "label_flip",
}
DEFENCES = (
    "btard + centered_clip_btard", "btard + centered_clip_btard", "baseline + centered_clip_btard",
    "baseline + geometric_median", "baseline + median", "baseline + mean",
)  # fmt: skip


def heads(out):
    return [line.strip() for line in out.splitlines() if "; q=" in line]


def write_mnist(root, count=1600):
    """A folder with as many pictures as a step of L46's takes."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, size in {"train": count, "t10k": 10}.items():
        for kind, shape in {"images-idx3": (size, 28, 28), "labels-idx1": (size,)}.items():
            (folder / f"{name}-{kind}-ubyte").write_bytes(idx(shape, 0)[0])
    return root


def test_l46s_schemes_differ_in_who_attacks_and_how_often():
    mild, aggressive = (
        yaml.safe_load((CONF / f"experiment/l46/{name}.yaml").read_text())
        for name in ("mild", "aggressive")
    )
    liars = [(one.pop("q"), one.pop("adversary")["every"]) for one in (mild, aggressive)]
    assert liars == [(1, 5), (2, 1)]
    assert mild == aggressive


def check_l46(cli, root, scheme, scale, *more):
    code, out, err = cli(
        f"experiment=l46/{scheme}", f"scale={scale}", f"dataset.root={root}", "plan=true", *more
    )
    assert code == 0, err
    return heads(out)


def test_l46_at_its_own_size(cli, tmp_path):
    root, only = write_mnist(tmp_path), "hydra.sweeper.only=[baseline]"
    (head,) = check_l46(cli, root, "aggressive", "l46_paper", only)
    assert head.startswith("btard + centered_clip_btard: K=6 peers")
    assert "q=2 liars (fixed_random, none)" in head
    assert head.endswith("l46_net on mnist, d=21,840, batch 1536 = 6 x 256")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "liars"), [("aggressive", 2), pytest.param("mild", 1, marks=pytest.mark.thorough)]
)
def test_l46s_curves_can_be_run(cli, tmp_path, scheme, liars):
    found = check_l46(cli, write_mnist(tmp_path), scheme, "l46_smoke")
    for attack, head in zip(L46, found, strict=True):
        assert f"q={liars} liars (fixed_random, {attack})" in head
        assert head.endswith("batch 300 = 6 x 50")


@pytest.mark.slow
@pytest.mark.parametrize(
    "figure",
    [
        one if one == "fig_none" else pytest.param(one, marks=pytest.mark.thorough)
        for one in FIGURES
    ],
)
def test_a_figures_curves_can_be_run(cli, figure):
    code, out, err = cli(f"experiment=btard/{figure}", "scale=btard_smoke", "plan=true")
    assert code == 0, err
    for start, head in zip(DEFENCES, heads(out), strict=True):
        peers = "peers" if start.startswith("btard") else "workers"
        assert head.startswith(f"{start}: K=16 {peers}")
        assert f"q=7 liars (fixed_random, {FIGURES[figure]})" in head
        assert head.endswith("batch 288 = 16 x 18")


@pytest.mark.slow
def test_late_liars_of_a_figure_replay_what_was_before_they_began(cli, tmp_path):
    code, _, err = cli(
        "experiment=btard/fig_delayed", "scale=btard_smoke", "steps=4", "adversary.start=2",
        "hydra.sweeper.only=[btard_tau10,mean]", f"output_dir={tmp_path}",
    )  # fmt: skip
    assert code == 0, err
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("*/summary.json")]
    assert [len(summary["byzantine"]) for summary in summaries] == [7, 7]
    configs = [yaml.safe_load(path.read_text()) for path in tmp_path.glob("*/config.yaml")]
    assert [config["attack"]["delay"] for config in configs] == [2, 2]


@pytest.mark.parametrize("peers", [6, 16])
def test_a_scales_batch_is_one_of_its_peers(peers):
    names = {6: ("l46_paper", "l46_smoke"), 16: ("btard_paper", "btard_thin", "btard_smoke")}
    for name in names[peers]:
        scale = yaml.safe_load((CONF / f"scale/{name}.yaml").read_text())
        assert scale["batch_size"] % peers == 0, name
        assert 1 < scale["adversary"]["start"] < scale["steps"] <= scale["optimizer"]["horizon"]
