"""The papers' figures as presets: their schedules, and that each of their curves can be run."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf" / "experiment"
NAMES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
FIGURES = [name for name in NAMES if name.startswith("byzshield/")]

# ByzShield, Table 7: figure, then its schemes in the order of its legend, and (lr, decay, every).
# Schemes of a figure that the table leaves out are curves of an earlier figure.
TABLE_7 = """
2: 1,2 (.00625,.96,15); 3 (.025,.96,15); 4,5,6 (.01,.95,20)
3: 1,2 (.003125,.96,15)
4: 1 (.00625,.96,15); 2,5,6 (.01,.95,20)
5: 1,2 (.0001,.99,20); 3,4 (.025,.96,15); 5,6 (.001,.5,50)
6: 1,2,4 (.05,.96,15); 3 (.1,.95,50); 5,6 (.025,.96,15)
7: 1,2 (.025,.96,15); 4 (.05,.96,15)
8: 1,2,3 (.05,.96,15); 7,8 (.025,.96,15)
9: 1 (.003125,.96,15); 2 (.01,.96,15); 3 (.0125,.96,15)
10: 1 (.0015625,.96,15)
11: 1 (.003125,.96,15); 3 (.0125,.96,15)
"""
LEGENDS = {
    2: "median_q3 median_q5 byzshield_q3 byzshield_q5 detox_q3 detox_q5",
    3: "bulyan_q3 bulyan_q5 byzshield_q3 byzshield_q5",
    4: "multi_krum_q3 multi_krum_q5 byzshield_q3 byzshield_q5 detox_q3 detox_q5",
    5: "sign_sgd_q3 sign_sgd_q5 byzshield_q3 byzshield_q5 detox_q3 detox_q5",
    6: "median_q3 median_q9 byzshield_q3 byzshield_q9 detox_q3 detox_q9",
    7: "bulyan_q3 bulyan_q5 byzshield_q3 byzshield_q5",
    8: "multi_krum_q3 multi_krum_q5 multi_krum_q9 byzshield_q3 byzshield_q5 byzshield_q9 "
    "detox_q3 detox_q5",
    9: "median_q2 byzshield_q2 detox_q2",
    10: "bulyan_q2 byzshield_q2",
    11: "multi_krum_q2 byzshield_q2 detox_q2",
}
# K = 25 or 15, the attack, and the rule of the schemes that are not ByzShield's.
SETTINGS = {
    2: (25, "alie_byzshield", "median"), 3: (25, "alie_byzshield", "bulyan_byzshield"),
    4: (25, "alie_byzshield", "multi_krum"), 5: (25, "constant", "sign_majority"),
    6: (25, "reversed_gradient", "median"), 7: (25, "reversed_gradient", "bulyan_byzshield"),
    8: (25, "reversed_gradient", "multi_krum"), 9: (15, "alie_byzshield", "median"),
    10: (15, "alie_byzshield", "bulyan_byzshield"), 11: (15, "alie_byzshield", "multi_krum"),
}  # fmt: skip


def curves_of(name):
    """By name, the overrides of each curve as a dictionary."""
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return {
        curve: dict(pair.split("=", 1) for pair in shlex.split(overrides))
        for curve, overrides in content["hydra"]["sweeper"]["curves"].items()
    }


def schedules():
    """By figure and place in its legend, from 1: (lr, decay, every)."""
    found = {}
    for line in TABLE_7.strip().splitlines():
        figure, rest = line.split(": ")
        for group in rest.split("; "):
            schemes, values = group.split(" ")
            for scheme in schemes.split(","):
                found[int(figure), int(scheme)] = tuple(map(float, values.strip("()").split(",")))
    return found


def schedule(curve):
    keys = ("optimizer.lr", "optimizer.decay", "optimizer.decay_every")
    return tuple(float(curve[key]) for key in keys)


def test_every_figure_of_the_paper_is_there():
    assert [int(name[-2:]) for name in FIGURES] == list(LEGENDS)


@pytest.mark.parametrize("figure", LEGENDS)
def test_a_figure_has_the_papers_curves_and_schedules(figure):
    name = f"byzshield/fig{figure:02d}"
    curves = curves_of(name)
    assert list(curves) == LEGENDS[figure].split()
    table = schedules()
    earlier = {
        curve: schedule(values)
        for other in LEGENDS
        if other < figure and SETTINGS[other][:2] == SETTINGS[figure][:2]
        for curve, values in curves_of(f"byzshield/fig{other:02d}").items()
        if curve.startswith("byzshield")
    }
    for place, (curve, values) in enumerate(curves.items(), start=1):
        expected = table.get((figure, place)) or earlier[curve]
        assert schedule(values) == expected, curve


SOME = [
    figure if figure in (2, 11) else pytest.param(figure, marks=pytest.mark.thorough)
    for figure in LEGENDS
]


@pytest.mark.slow
@pytest.mark.parametrize("figure", SOME)
def test_a_figures_curves_can_be_run(figure, cli):
    """All points are composed, built and checked, at the small scale."""
    num_workers, attack, rule = SETTINGS[figure]
    name = f"byzshield/fig{figure:02d}"
    code, out, err = cli(f"experiment={name}", "scale=smoke", "plan=true")
    assert code == 0, err
    heads = [line.strip() for line in out.splitlines() if " workers, f=" in line]
    for curve, head in zip(LEGENDS[figure].split(), heads, strict=True):
        scheme, _, liars = curve.rpartition("_q")
        placement = "ramanujan_two" if num_workers == 25 else "mols"
        start = {"byzshield": f"{placement} + median", "detox": f"detox + {rule}"}.get(
            scheme, f"baseline + {rule}"
        )
        if scheme == "detox" and rule == "median":
            start = "detox + median_of_means"
        assert head.startswith(f"{start}: K={num_workers} workers")
        assert f"q={liars} liars (worst_case, {attack})" in head


@pytest.mark.slow
def test_a_figure_at_the_papers_size(cli, tmp_path, monkeypatch):
    from picture_files import accept, write_cifar10

    write_cifar10(tmp_path, each=150)
    accept(monkeypatch, tmp_path)
    code, out, err = cli(
        "experiment=byzshield/fig09", "plan=true", f"dataset.root={tmp_path}",
        "hydra.sweeper.only=[byzshield_q2]",
    )  # fmt: skip
    assert code == 0, err
    assert "resnet18 on cifar10, d=11,173,962, batch 750 = 25 x 30" in out


@pytest.mark.slow
def test_a_thin_curve_runs(cli, tmp_path, monkeypatch):
    from picture_files import write_folder

    monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "cache"))
    write_folder(tmp_path / "data", side=32)
    code, out, err = cli(
        "experiment=byzshield/fig09", "scale=thin", f"dataset.root={tmp_path / 'data'}", "steps=1",
        "hydra.sweeper.only=[byzshield_q2]", f"output_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert code == 0, err
    assert "resnet18 on image_folder" in out
    assert "batch 225 = 25 x 9" in out


@pytest.mark.slow
def test_detoxs_setting_and_a_choice_of_curves(cli):
    code, out, err = cli(
        "experiment=detox/alie", "scale=smoke", "plan=true",
        "hydra.sweeper.only=[detox_median,bulyan]", "seed=1,2",
    )  # fmt: skip
    assert code == 0, err
    heads = [line.strip().partition(",")[0] for line in out.splitlines() if " workers, f=" in line]
    detox, bulyan = "detox + median_of_means", "baseline + bulyan_byzshield"
    assert heads == [f"{one}: K=45 workers" for one in (detox, detox, bulyan, bulyan)]


def test_an_unknown_curve_is_one_line(cli):
    code, _, err = cli("experiment=byzshield/fig10", "hydra.sweeper.only=[median_q2]", "plan=true")
    assert code == 2
    assert err.splitlines() == [
        "byzshield_exp: hydra.sweeper.only=median_q2: no such curve, there are bulyan_q2, "
        "byzshield_q2"
    ]


REFUSED = {
    "two figures": (
        ["-m", "experiment=byzshield/fig10,byzshield/fig11"],
        "experiment=byzshield/fig10,byzshield/fig11: one experiment at a time, as each has its own "
        "curves",
    ),
    "a single run": (
        ["experiment=byzshield/fig10", "hydra.mode=RUN", "scale=smoke"],
        "experiment=byzshield/fig10 is a multirun of its curves: leave hydra.mode out",
    ),
    "Hydra's sweeper": (
        ["experiment=byzshield/fig10", "hydra/sweeper=basic"],
        "hydra/sweeper: an experiment with curves needs hydra/sweeper=byzshield",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_a_figure_is_done_with_its_curves_or_not_at_all(cli, tmp_path, arguments, said):
    code, _, err = cli(*arguments, f"output_dir={tmp_path}")
    assert code == 2
    assert err.splitlines() == [f"byzshield_exp: {said}"]


def test_equal_points_are_done_once(cli):
    """With one q for all, two curves of the median are one."""
    code, out, err = cli(
        "experiment=byzshield/fig03", "scale=smoke", "plan=true", "q=2",
        "hydra.sweeper.only=[bulyan_q3,bulyan_q5]",
    )  # fmt: skip
    assert code == 0, err
    assert out.count(" workers, f=") == 1


@pytest.mark.slow
def test_a_figure_runs(cli, tmp_path):
    code, _, err = cli(
        "experiment=byzshield/fig09", "scale=smoke", "steps=2", f"output_dir={tmp_path}"
    )
    assert code == 0, err
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("*/summary.json")]
    assert sorted(summary["num_corrupt"] for summary in summaries) == [1, 1, 2]
    assert all(summary["steps"] == 2 for summary in summaries)
