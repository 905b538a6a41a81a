"""The radius that is found once, in public files at the initial parameters."""

from math import inf

import pytest
import torch
from running import SMALL, summary_of

from byzshield_exp.errors import ConfigError
from byzshield_exp.training.experiment import build
from byzshield_exp.training.radius import calibrated_tau, distances, public_rows
from byzshield_exp.training.true_gradients import true_gradients

CLIP = ("aggregator=centered_clip", "aggregator.tau=calibrated", "q=4", "attack=ipm_optimised")


def test_distances_are_those_of_a_loop_in_float64():
    rows = torch.randn(6, 11, generator=torch.Generator().manual_seed(0))
    parts = [slice(0, 4), slice(4, 4), slice(4, 11)]
    middle = [sum(sorted(column.tolist())[2:4]) / 2 for column in rows.T]
    expected = [
        [sum((row[at] - middle[at]) ** 2 for at in range(11)[part]) ** 0.5 for part in parts]
        for row in rows.double().tolist()
    ]
    found = distances(rows, parts)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=1e-7)
    assert calibrated_tau(found) == sorted(found.flatten().tolist())[8]  # the lower of two


@pytest.mark.slow
def test_a_run_takes_the_median_distance_of_its_first_files(plain_config, cli, tmp_path):
    experiment = build(plain_config(*CLIP))
    truth = true_gradients(experiment, plain_config(*CLIP), 1)
    rows = public_rows(experiment, truth, 5)
    truth.begin(0)
    assert torch.equal(rows, truth.rows(range(5)))
    whole = truth.rows().double()
    lengths = (whole - whole.median(dim=0).values).norm(dim=1)  # of 25 files
    _, out, _ = cli(*SMALL, *CLIP, f"output_dir={tmp_path}")
    summary = summary_of(tmp_path)
    assert summary["tau"] == pytest.approx(float(lengths.median()), rel=1e-6)
    assert summary["files_computed"] == [25]  # those of the calibration are not counted
    assert f"aggregator.tau=calibrated is {summary['tau']:.6g}\n" in out


@pytest.mark.slow
def test_one_process_several_and_a_resumed_run_end_with_the_same_bits(run, tmp_path):
    alone = run(*CLIP)
    gloo = ("cluster=processes", "cluster.num_processes=2", "cluster.backend=gloo")
    others = [run(*CLIP, *gloo, folder=tmp_path / "gloo")]
    run(*CLIP, "steps=2", folder=tmp_path / "resumed")
    others.append(run(*CLIP, folder=tmp_path / "resumed"))
    for other in others:
        for key in ("tau", "parameters_sha256"):
            assert other[key] == alone[key]


@pytest.mark.parametrize("wrong", [0.0, inf])
def test_no_radius_is_one_line(wrong):
    with pytest.raises(ConfigError, match=r"^aggregator\.tau=calibrated: .* are (0\.0|inf) from"):
        calibrated_tau(torch.full((3, 1), wrong).double())
