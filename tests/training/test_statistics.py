"""Networks with running statistics (BatchNorm): what workers send of them and the server makes."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from own_network import SMALL, truth_of
from running import metrics_of, summary_of
from torch import nn

from byzshield_exp import aggregators
from byzshield_exp.aggregators import Defence
from byzshield_exp.aggregators.rule import rule_traits
from byzshield_exp.binding import bind
from byzshield_exp.commands.evaluate import main as evaluate
from byzshield_exp.networks import are_variances, entries_of, flatten, running_statistics, twin
from byzshield_exp.results import checkpoint
from byzshield_exp.training import forging
from byzshield_exp.training.experiment import build
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.votes import tolerant


def test_all_numbers_lie_in_one_vector(network):
    made = network((1, 8, 8), 10)
    before = copy.deepcopy(made.state_dict())
    flat = flatten(made)
    assert len(flat.statistics) == 2 * 8 + 2 * 32
    assert len(flat.state) == len(flat.params) + len(flat.statistics)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])
    flat.state.fill_(7)
    assert all(bool((value == 7).all()) for value in made.parameters())
    assert all(bool((getattr(m, name) == 7).all()) for m, name in running_statistics(made))
    expected = [0] * 8 + [1] * 8 + [0] * 32 + [1] * 32
    assert are_variances(made).int().tolist() == expected


def test_a_message_is_the_gradient_and_the_statistics_after_the_file(network):
    truth, made, flat, data, batches = truth_of(network)
    flat.statistics.uniform_(0.5, 2)  # as a server has published them
    published = flat.statistics.clone()
    truth.begin(3)
    message = truth.message(2).joined.clone()
    assert torch.equal(flat.statistics, published)  # only the server changes them
    samples = batches.file(3, 2)
    alone = copy.deepcopy(made)
    loss = nn.functional.cross_entropy(
        alone(data.train_images[samples]), data.train_labels[samples]
    )
    gradients = torch.autograd.grad(loss, list(alone.parameters()))
    assert torch.equal(message, torch.cat([*map(entries_of, gradients), flatten(alone).statistics]))
    assert torch.equal(truth.rows([2])[0], message[: len(flat.params)])
    assert not torch.equal(message[len(flat.params) :], published)


def test_bits_depend_neither_on_threads_nor_on_the_files_before(network):
    one, two = truth_of(network)[0], truth_of(network, num_threads=2)[0]
    for step in (0, 1):
        one.begin(step)
        two.begin(step)
        for file in (4, 2, 0, 1, 3):
            one.message(file)
        two.rows()
        assert torch.equal(one.table, two.table)


@pytest.mark.parametrize(("liars", "trimmed"), [(0, 0), (3, 3), (11, 12)])
def test_the_server_takes_the_trimmed_mean_of_the_statistics(
    network, run, tmp_path, liars, trimmed
):
    """Against numpy, for the one step that the checkpoint of step 1 shows; at most to the median.

    No liar lies here.
    """
    options = (*SMALL, "attack=none", f"q={liars}", "steps=1")
    run(*options, small=False, folder=tmp_path / "out")
    (path,) = tmp_path.glob("out/*/checkpoints/*.pt")
    found = checkpoint.load(path)["statistics"]
    experiment = build(json.loads(checkpoint.load(path)["config"]))
    truth = TrueGradients(experiment.network, experiment.dataset, experiment.batches, 25)
    truth.begin(0)
    rows = np.stack([truth.message(file).statistics.numpy() for file in range(25)])
    expected = np.sort(rows.astype(np.float64), axis=0)[trimmed : 25 - trimmed].mean(axis=0)
    assert np.array_equal(found.numpy(), expected.astype(np.float32))


def test_statistics_that_are_not_finite_are_left_out(network, run, tmp_path):
    """Three of 25 winners are NaN as a whole; the rest makes update and statistics."""
    options = (*SMALL, "attack=not_a_number", "approach=baseline", "K=15", "q=3")
    summary = run(*options, small=False, folder=tmp_path / "out")
    assert summary["diverged_at_step"] is None
    assert metrics_of(tmp_path / "out")[0]["nonfinite_files"] == 3
    (path, *_) = tmp_path.glob("out/*/checkpoints/*.pt")
    assert bool(torch.isfinite(checkpoint.load(path)["statistics"]).all())


@pytest.mark.slow
def test_a_message_with_bad_statistics_is_set_aside_whole(network, run, tmp_path, monkeypatch):
    """Its gradient too: the rest is what is left without the liars' rows."""
    monkeypatch.setattr(forging, "_POISON", float("nan"))
    options = (*SMALL, "approach=baseline", "K=15", "q=3", "aggregator=mean")
    losses = {}
    for attack in ("constant", "not_a_number"):
        folder = tmp_path / attack
        run(*options, f"attack={attack}", "poison_statistics=true", small=False, folder=folder)
        records = metrics_of(folder)
        assert records[0]["nonfinite_files"] == 3
        losses[attack] = [record["loss"] for record in records]
    assert losses["constant"] == losses["not_a_number"]


@pytest.mark.slow
def test_statistics_are_poisoned_where_the_attack_lies(network, run, tmp_path):
    """Elsewhere files with an even number of replicas would be left without a majority."""
    options = (*SMALL, "approach=subsets", "K=6", "r=4", "q=3", "poison_statistics=true")
    wrapped = ("attack=majorities_only", "attack@attack.attack=reversed_gradient")
    run(*options, *wrapped, "aggregator=krum", small=False, folder=tmp_path / "out")
    for record in metrics_of(tmp_path / "out"):
        assert record["files_without_majority"] == 0
        assert record["vote_disagreements"] == record["distorted_files"] > 0


def test_statistics_do_not_hide_what_gradients_differ_by():
    gradient, statistics = 1e-2 * torch.randn(50), 1e5 * torch.rand(10)
    honest, lie = torch.cat([gradient, statistics]), torch.cat([-gradient, statistics])
    assert tolerant([[honest, honest.clone(), lie]]).tolist() == [[0, 0, 0]]
    assert tolerant([[honest, honest.clone(), lie]], gradient_size=50).tolist() == [[0, 0, 2]]
    drifted = torch.cat([gradient, 2 * statistics])
    assert tolerant([[honest, honest.clone(), drifted]], gradient_size=50).tolist() == [[0, 0, 2]]


def test_a_tolerant_vote_knows_where_statistics_begin(network, plain_config):
    experiment = build(plain_config(*SMALL, "vote=tolerant", small=False))
    assert experiment.vote.keywords["gradient_size"] == len(experiment.params)
    assert build(plain_config("vote=tolerant")).vote.keywords["gradient_size"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*SMALL, "attack=none"), "poison_statistics=true does nothing: attack=none"),
        ((), "poison_statistics=true does nothing: the network has no running statistics"),
        ((*SMALL, "K=4", "q=1", "attack=alie", "approach=baseline", "batch_size=40"), None),
    ],
)
def test_poison_that_does_nothing_is_said(network, plain_config, options, said):
    experiment = build(plain_config(*options, "poison_statistics=true", small=False))
    assert [note for note in experiment.notes if "poison" in note] == ([said] if said else [])
    if said is None:  # the z of alie is 0, the statistics are false
        assert experiment.is_attack_effective
        assert experiment.is_poisoning_statistics


def test_small_files_are_warned_of(network, plain_config):
    few, many = (
        build(plain_config(*SMALL, f"batch_size={size}", small=False)) for size in (175, 200)
    )
    assert "files of 7: BatchNorm's statistics are rough below 8 samples" in few.notes
    assert many.notes == ()


@pytest.mark.slow
def test_variances_are_not_negative(network, run, tmp_path):
    """Even where liars win most files."""
    options = (*SMALL, "attack=reversed_gradient", "poison_statistics=true", "q=12")
    run(*options, small=False, folder=tmp_path / "out")
    (path, *_) = tmp_path.glob("out/*/checkpoints/*.pt")
    statistics = checkpoint.load(path)["statistics"]
    assert float(statistics[are_variances(network((1, 8, 8), 10))].min()) >= 0
    assert float(statistics.min()) < -1


@pytest.mark.slow
@pytest.mark.parametrize(("vote", "dropout"), [("digest", 0.0), ("majority", 0.5)])
def test_processes_do_what_one_does_and_resume_where_they_stopped(
    network, run, capsys, tmp_path, vote, dropout
):
    options = (
        *SMALL, "attack=alie", "poison_statistics=true", "attack.z=1", f"vote={vote}",
        f"+network.dropout={dropout}",
    )  # fmt: skip

    def done(folder, *more):
        summary = run(*options, *more, small=False, folder=tmp_path / folder)
        return summary["parameters_sha256"], summary["buffers_sha256"]

    whole = done("whole")
    ranks = ("cluster=processes", "cluster.num_processes=4")
    done("part", *ranks, "steps=5")
    assert done("part", *ranks) == whole
    (folder,) = (tmp_path / "whole").iterdir()
    assert evaluate([f"run={folder}", f"output={tmp_path}"]) in (0, None)
    accuracy = summary_of(tmp_path / "whole")["final_test_accuracy"]
    assert f"{accuracy:.4f}" in capsys.readouterr().out


@pytest.mark.thorough
def test_torchrun_does_what_one_process_does(network, run, tmp_path):
    options = (*SMALL, "attack=delayed_gradient", "poison_statistics=true", "worker_momentum=0.5",
        "+network.dropout=0.5", "K=6", "r=3", "approach=detox", "q=2", "attack.delay=2",
        "on_nonfinite=skip_step")  # fmt: skip
    one = run(*options, small=False, folder=tmp_path / "alone")
    together = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4",
         "-m", "byzshield_exp", *options, f"output_dir={tmp_path / 'together'}"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert together.returncode == 0, together.stderr
    other = summary_of(tmp_path / "together")
    assert one["parameters_sha256"] == other["parameters_sha256"]
    assert one["buffers_sha256"] == other["buffers_sha256"]


def test_a_twin_shares_parameters_and_little_else(network):
    made = network((1, 8, 8), 10)
    flat = flatten(made)
    other = twin(made)
    pairs = zip(made.parameters(), other.parameters(), strict=True)
    assert all(one.data_ptr() == its.data_ptr() for one, its in pairs)
    for module, name in running_statistics(other):
        part = getattr(module, name)
        assert part.untyped_storage().nbytes() == 4 * part.numel()
    flat.statistics.fill_(7)
    assert not any(bool((getattr(m, name) == 7).any()) for m, name in running_statistics(other))


@pytest.mark.parametrize("name", sorted(
    name
    for name in aggregators.__all__
    if rule_traits(getattr(aggregators, name)).kind not in ("", "mixing")
))  # fmt: skip
def test_rules_take_rows_that_lie_apart(name):
    """Gradients lie in front of statistics: a row does not end where the next one begins."""
    table = torch.randn(25, 1036, generator=torch.Generator().manual_seed(1))
    target = {"_target_": f"byzshield_exp.aggregators.{name}"}
    rule = bind("aggregator", target, ("rows", "num_corrupt", "generator", "previous"))
    defence = Defence(rule, make_generator=lambda: np.random.default_rng(0))
    apart = table[:, :1000]
    assert torch.equal(defence(apart, 3), defence(apart.contiguous(), 3))
