"""Pre-aggregators as choices of a run."""

import pytest
import yaml
from running import SMALL

from byzshield_exp.results import checkpoint


@pytest.mark.slow
def test_several_apply_in_the_order_given(run, tmp_path):
    digests = {}
    chains = ("[static_clip,bucketing]", "[bucketing,static_clip]", "bucketing", "[bucketing]")
    for number, chain in enumerate(chains):
        folder = tmp_path / str(number)
        summary = run(
            f"pre_aggregator={chain}", "aggregator=trimmed_mean", "approach=baseline", "q=2",
            *(["pre_aggregator.static_clip.max_norm=0.5"] if "," in chain else []), folder=folder,
        )  # fmt: skip
        digests[chain] = summary["parameters_sha256"]
        (name,) = [path.name for path in folder.iterdir() if path.is_dir()]
        assert f"pre_aggregator={chain.strip('[]').replace(',', '+')}" in name
    assert digests["[static_clip,bucketing]"] != digests["[bucketing,static_clip]"]
    assert digests["bucketing"] == digests["[bucketing]"]


@pytest.mark.slow
def test_chains_are_points_of_a_sweep(cli, tmp_path):
    code, out, err = cli(
        "-m", *SMALL, "pre_aggregator=none,nnm,[arc,nnm]", "aggregator=trimmed_mean",
        f"output_dir={tmp_path}",
    )  # fmt: skip
    assert code == 0, err
    assert out.count("done: test accuracy") == 3
    assert len({path.parent.name for path in tmp_path.glob("*/summary.json")}) == 3


@pytest.mark.slow
def test_a_chain_of_a_run_is_in_its_configuration_and_resumes(cli, run, tmp_path):
    chain = ("pre_aggregator=[arc,nnm]", "aggregator=krum")
    whole = run(*chain, folder=tmp_path / "a")["parameters_sha256"]
    run(*chain, "steps=2", folder=tmp_path / "b")
    assert run(*chain, folder=tmp_path / "b")["parameters_sha256"] == whole
    (path,) = (tmp_path / "b").glob("*/config.yaml")
    config = yaml.safe_load(path.read_text())
    assert list(config["pre_aggregator"]) == ["arc", "nnm"]
    code, out, _ = cli(*SMALL, *chain, f"output_dir={tmp_path}/b")
    assert code == 0
    assert "finished" in out
    code, _, err = cli(*SMALL, "pre_aggregator=[nnm,arc]", "aggregator=krum", "plan=true")
    assert code == 0, err


def test_conditions_are_checked_after_the_chain(cli, tmp_path):
    code, _, err = cli(
        *SMALL, "approach=baseline", "pre_aggregator=[bucketing]", "aggregator=krum",
        f"output_dir={tmp_path}",
    )  # fmt: skip
    assert code == 2
    assert "pre_aggregator=bucketing aggregator=krum needs n >= 2*num_corrupt+3" in err
    assert "got n=8 num_corrupt=3" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_previous_result_of_centred_clipping_is_kept_in_checkpoints(run, tmp_path):
    rule = ("aggregator=centered_clip", "aggregator.tau=0.5")
    whole = run(*rule, folder=tmp_path / "a")["parameters_sha256"]
    run(*rule, "steps=2", folder=tmp_path / "b")
    assert run(*rule, folder=tmp_path / "b")["parameters_sha256"] == whole
    from_median = run(*rule, "aggregator.start=median", folder=tmp_path / "c")
    assert from_median["parameters_sha256"] != whole


def test_an_option_of_another_type_is_one_line(cli, tmp_path):
    for wrong, message in (
        ("pre_aggregator.bucketing.size=two", "pre_aggregator.bucketing.size='two' must be int"),
        ("+pre_aggregator.bucketing.sise=2", "did you mean 'size'?"),
        ("pre_aggregator.bucketing.size=0", "needs 1 <= size <= n, got size=0"),
    ):
        code, _, err = cli(*SMALL, "pre_aggregator=[bucketing]", wrong, f"output_dir={tmp_path}")
        assert code == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1


def test_worker_momentum_comes_before_the_chain(run, tmp_path):
    """In the first step it only scales the rows by 1 - beta, which a clip to one norm undoes."""
    params = []
    for beta in (0.0, 0.9):
        run(
            "approach=baseline", "aggregator=mean", "attack=none", "pre_aggregator=static_clip",
            "pre_aggregator.static_clip.max_norm=1e-3", f"worker_momentum={beta}", "steps=1",
            "optimizer.lr=1", "optimizer.momentum=0", folder=tmp_path / str(beta),
        )  # fmt: skip
        (path,) = (tmp_path / str(beta)).glob("*/checkpoints/*.pt")
        params.append(checkpoint.load(path)["params"])
    assert (params[0] - params[1]).norm() < 1e-5  # clipped first, a tenth of the step is left
