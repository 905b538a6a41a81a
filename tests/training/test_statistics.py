"""Networks with running statistics (BatchNorm) and with random numbers of their own (dropout)."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from running import metrics_of, run_program, summary_of
from torch import nn

from byzshield_exp import aggregators
from byzshield_exp.aggregators import Defence
from byzshield_exp.binding import bind
from byzshield_exp.datasets import Batches, digits, synthetic
from byzshield_exp.networks import are_variances, entries_of, flatten, running_statistics, twin
from byzshield_exp.results import checkpoint
from byzshield_exp.training import aggregation, work
from byzshield_exp.training.accuracy import evaluate
from byzshield_exp.training.experiment import build
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.votes import tolerant

USERS = """
from torch import nn

def network(shape, num_classes: int, dropout=0.0, momentum: float | None = 0.1, bad: int = 0):
    channels, height, width = shape
    rest = 8 * (height // 2) * (width // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(rest + bad, 32),
        nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, num_classes),
    )
"""
NETWORK = ("network._target_=users_network.network", "~network.hidden_relu")
SMALL = (*NETWORK, "dataset=synthetic", "steps=7", "eval_every=4")


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network of the user's own, here and in processes started from here."""
    (tmp_path / "users_network.py").write_text(USERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    import users_network

    return users_network.network


def truth_of(network, num_threads=1, seed=None, size=8):
    torch.manual_seed(0)
    data = synthetic(num_train=200, num_test=1, size=size)
    made = network(data.shape, 10)
    flat = flatten(made)
    batches = Batches(200, 50, 5, seed=0)
    return TrueGradients(made, data, batches, 5, num_threads, seed), made, flat, data, batches


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


def recomputed(made, data):
    """A copy with statistics that are counted anew over the training data."""
    other = copy.deepcopy(made).train()
    for module in other.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
            module.momentum = None  # the mean over batches
    with torch.no_grad():
        for samples in torch.arange(1400).split(100):
            other(data.train_batch(samples, np.random.default_rng(0))[0])
    return other


TRAINED = (*NETWORK, "steps=80", "eval_every=80", "optimizer.lr=0.1")


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(("attack=none",), id="none"),
        pytest.param(("attack=alie",), id="alie", marks=pytest.mark.slow),
        pytest.param(
            ("attack=reversed_gradient", "poison_statistics=true"), id="poisoned statistics"
        ),
    ],
)
def test_evaluation_is_as_good_as_with_statistics_of_the_training_data(
    network, run, tmp_path, attack
):
    summary = run(*TRAINED, *attack, small=False, folder=tmp_path / "out")
    accuracy, again = summary["final_test_accuracy"], trained(network, tmp_path)
    assert accuracy > 0.9
    assert abs(accuracy - again) <= 0.01


def trained(network, tmp_path):
    """Accuracy with statistics that are counted anew over the training data."""
    return evaluate(recomputed_network(network, tmp_path)[1], digits().chunks("test")).accuracy


def recomputed_network(network, tmp_path):
    """The trained network as it was saved, and with statistics counted anew."""
    (path, *_) = sorted(tmp_path.glob("out/*/checkpoints/*.pt"), reverse=True)
    saved, data = checkpoint.load(path), digits()
    made = network(data.shape, 10)
    flat = flatten(made)
    flat.params.copy_(saved["params"])
    flat.statistics.copy_(saved["statistics"])
    return made, recomputed(made, data)


def test_variances_of_small_files_are_not_biased(network, run, tmp_path):
    """Of two samples the median variance is half of the mean one."""
    options = (*TRAINED, "attack=none", "q=0", "batch_size=50")
    run(*options, small=False, folder=tmp_path / "out")
    saved, other = recomputed_network(network, tmp_path)
    ratios = [
        float((module.running_var / getattr(again, name)).median())
        for (module, name), (again, _) in zip(
            running_statistics(saved), running_statistics(other), strict=True
        )
        if name == "running_var"
    ]
    assert all(0.9 < ratio < 1.1 for ratio in ratios)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [("attack=none",), ("attack=alie", "poison_statistics=true")])
def test_evaluation_is_as_good_with_processes(network, tmp_path, attack):
    ranks = ("cluster=processes", "cluster.num_processes=4")
    done = run_program(*TRAINED, *attack, *ranks, f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    accuracy = summary_of(tmp_path / "out")["final_test_accuracy"]
    assert accuracy > 0.9
    assert abs(accuracy - trained(network, tmp_path)) <= 0.01


@pytest.mark.slow
def test_without_trimming_poisoned_statistics_would_not_be_filtered(
    network, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(aggregation, "trimmed_mean", lambda rows, trimmed: rows.mean(dim=0))
    options = (*TRAINED, "attack=reversed_gradient", "poison_statistics=true")
    summary = run(*options, small=False, folder=tmp_path / "out")
    assert summary["final_test_accuracy"] < 0.5  # with trimming it is above 0.9


def test_statistics_that_are_not_finite_are_left_out(network, run, tmp_path):
    """Three of 25 winners are NaN as a whole; the rest makes update and statistics."""
    options = (*SMALL, "attack=not_a_number", "approach=baseline", "K=15", "q=3")
    summary = run(*options, small=False, folder=tmp_path / "out")
    assert summary["diverged_at_step"] is None
    assert metrics_of(tmp_path / "out")[0]["nonfinite_files"] == 3
    (path, *_) = tmp_path.glob("out/*/checkpoints/*.pt")
    assert bool(torch.isfinite(checkpoint.load(path)["statistics"]).all())


def test_a_message_with_bad_statistics_is_set_aside_whole(network, run, tmp_path, monkeypatch):
    """Its gradient too: the rest is what is left without the liars' rows."""
    monkeypatch.setattr(work, "_POISON", float("nan"))
    options = (*SMALL, "approach=baseline", "K=15", "q=3", "aggregator=mean")
    losses = {}
    for attack in ("constant", "not_a_number"):
        folder = tmp_path / attack
        run(*options, f"attack={attack}", "poison_statistics=true", small=False, folder=folder)
        records = metrics_of(folder)
        assert records[0]["nonfinite_files"] == 3
        losses[attack] = [record["loss"] for record in records]
    assert losses["constant"] == losses["not_a_number"]


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
def test_processes_do_what_one_does_and_resume_where_they_stopped(network, tmp_path, vote, dropout):
    options = (
        *SMALL, "attack=alie", "poison_statistics=true", "attack.z=1", f"vote={vote}",
        f"+network.dropout={dropout}",
    )  # fmt: skip

    def done(folder, *more):
        finished = run_program(*options, *more, f"output_dir={tmp_path / folder}")
        assert finished.returncode == 0, finished.stderr
        summary = summary_of(tmp_path / folder)
        return summary["parameters_sha256"], summary["buffers_sha256"]

    whole = done("whole")
    ranks = ("cluster=processes", "cluster.num_processes=4")
    assert done("ranks", *ranks) == whole
    done("part", *ranks, "steps=5")
    assert done("part", *ranks) == whole
    (folder,) = (tmp_path / "whole").iterdir()
    beside = run_program("evaluate", f"run={folder}", f"output={tmp_path}")
    assert beside.returncode == 0, beside.stderr
    assert f"{summary_of(tmp_path / 'whole')['final_test_accuracy']:.4f}" in beside.stdout


@pytest.mark.slow
def test_torchrun_does_what_one_process_does(network, tmp_path):
    options = (*SMALL, "attack=delayed_gradient", "poison_statistics=true", "worker_momentum=0.5",
        "+network.dropout=0.5", "K=6", "r=3", "approach=detox", "q=2", "attack.delay=2",
        "on_nonfinite=skip_step")  # fmt: skip
    alone = run_program(*options, f"output_dir={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    together = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4",
         "-m", "byzshield_exp", *options, f"output_dir={tmp_path / 'together'}"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert together.returncode == 0, together.stderr
    one, other = (summary_of(tmp_path / name) for name in ("alone", "together"))
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


def test_a_cpu_run_leaves_gpus_alone(network, run, monkeypatch, tmp_path):
    """Every process would have a context on them."""

    def touched(*_):
        raise AssertionError("the GPU's generator was read")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched)
    run(*SMALL, "+network.dropout=0.5", small=False, folder=tmp_path / "out")


MORE = """
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

def spectral(shape, num_classes: int):
    rest = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), parametrizations.spectral_norm(nn.Linear(rest, num_classes)))

def weighted(shape, num_classes: int):
    rest = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(rest, num_classes)))

def judging(shape, num_classes: int):
    rest = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(rest, num_classes)).eval()

class Holding(nn.Module):
    def __init__(self, rest, num_classes, norm):
        super().__init__()
        self.linear, self.norm = nn.Linear(rest, num_classes), norm

    def forward(self, x):
        self.last = self.norm(self.linear(x.flatten(1)))
        return self.last

def holding(shape, num_classes: int):
    return Holding(shape[0] * shape[1] * shape[2], num_classes, nn.BatchNorm1d(num_classes))

def locked(shape, num_classes: int):
    import threading
    made = Holding(shape[0] * shape[1] * shape[2], num_classes, nn.Identity())
    made.lock = threading.Lock()
    return made

def unused(shape, num_classes: int):
    made = Holding(shape[0] * shape[1] * shape[2], num_classes, nn.Identity())
    made.other = nn.Linear(3, 3)
    return made

def stateless(shape, num_classes: int):
    rest = shape[0] * shape[1] * shape[2]
    norm = nn.BatchNorm1d(num_classes, momentum=None, track_running_stats=False)
    return nn.Sequential(nn.Flatten(), nn.Linear(rest, num_classes), norm)
"""


@pytest.fixture
def more(tmp_path, monkeypatch):
    (tmp_path / "more_networks.py").write_text(MORE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def options(name):
        return (f"network._target_=more_networks.{name}", *SMALL[1:])

    return options


def test_buffers_that_stay_with_a_worker_are_refused(more, cli, tmp_path):
    """Spectral norm's vectors would depend on the files that a worker has seen."""
    code, _, err = cli(*more("spectral"), f"output_dir={tmp_path}")
    assert code == 2
    assert err.startswith("byzshield_exp: network=lenet changes its buffer 1.parametrizations.")
    assert len(err.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", ["weighted", "stateless", "locked"])
def test_networks_that_cannot_be_copied_or_keep_nothing_learn(more, run, tmp_path, name):
    summary = run(*more(name), "steps=30", small=False, folder=tmp_path / "out")
    assert summary["final_test_accuracy"] > 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [("holding", "deepcopy protocol"), ("unused", "appears to not have been used")],
)
def test_networks_that_would_fail_at_the_first_step_are_refused(more, cli, tmp_path, name, said):
    code, _, err = cli(*more(name), f"output_dir={tmp_path}")
    assert code == 2
    assert err.startswith("byzshield_exp: network=lenet on 2 pictures of 1x8x8 (files of 12): ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_network_learns_in_training_mode(more, plain_config):
    experiment = build(plain_config(*more("judging"), small=False))
    assert experiment.is_stochastic
    assert experiment.network.training


def test_dropout_is_a_function_of_seed_step_and_file(network):
    def dropping(shape, num_classes):
        return network(shape, num_classes, dropout=0.5)

    truth = truth_of(dropping, num_threads=2, seed=3)[0]
    state = torch.get_rng_state()
    assert truth.num_threads == 1  # torch has one generator a process
    truth.begin(4)
    first = truth.message(2).joined.clone()
    assert torch.equal(torch.get_rng_state(), state)
    for seed, step, file, is_same in ((3, 4, 2, True), (3, 5, 2, False), (5, 4, 2, False)):
        other = truth_of(dropping, seed=seed)[0]
        other.begin(step)
        other.message(0)
        assert torch.equal(other.message(file).joined, first) == is_same


def test_dropout_is_the_same_for_what_an_attacker_recomputes(network):
    def dropping(shape, num_classes):
        return network(shape, num_classes, dropout=0.5)

    truth, _, flat, *_ = truth_of(dropping, seed=3)
    truth.begin(4)
    rows = truth.rows([1, 3]).clone()
    assert torch.equal(truth.poisoned_rows([1, 3], lambda labels, file: labels), rows)
    truth.begin(6)
    assert torch.equal(truth.rows_at(4, flat.params.clone(), [1, 3]), rows)


@pytest.mark.parametrize("name", sorted(
    name for name in aggregators.__all__ if hasattr(getattr(aggregators, name), "properties")
))  # fmt: skip
def test_rules_take_rows_that_lie_apart(name):
    """Gradients lie in front of statistics: a row does not end where the next one begins."""
    table = torch.randn(25, 1036, generator=torch.Generator().manual_seed(1))
    target = {"_target_": f"byzshield_exp.aggregators.{name}"}
    rule = bind("aggregator", target, ("rows", "num_corrupt", "generator", "previous"))
    defence = Defence(rule, make_generator=lambda: np.random.default_rng(0))
    apart = table[:, :1000]
    assert torch.equal(defence(apart, 3), defence(apart.contiguous(), 3))


BAD = {
    "momentum": (["+network.momentum=null"], "running statistics with momentum=None"),
    "one picture": (["batch_size=25"], "on 1 pictures of 1x8x8 (files of 1): "),  # torch says why
    "shapes": (["+network.bad=3"], "on 2 pictures of 1x8x8 (files of 12): "),
}


@pytest.mark.parametrize(("overrides", "message"), BAD.values(), ids=BAD)
def test_networks_that_cannot_learn_here_are_refused(network, cli, tmp_path, overrides, message):
    code, _, err = cli(*SMALL, *overrides, f"output_dir={tmp_path / 'out'}")
    assert code == 2
    assert err.startswith("byzshield_exp: network=lenet")
    assert message in err
    assert len(err.splitlines()) == 1
