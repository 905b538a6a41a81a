"""The loop against oracles."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from running import SMALL, metrics_of, modules_in, run_program
from torch.nn.functional import cross_entropy

from byzshield_exp.binding import construct
from byzshield_exp.clusters.alone import Alone
from byzshield_exp.datasets import Batches
from byzshield_exp.errors import LostRank
from byzshield_exp.networks import entries_of, flatten
from byzshield_exp.training.experiment import build
from byzshield_exp.training.loop import train


def in_float64(experiment):
    data = experiment.dataset
    network = experiment.network.double()
    return dataclasses.replace(
        experiment,
        dataset=dataclasses.replace(
            data, train_images=data.train_images.double(), test_images=data.test_images.double()
        ),
        network=network,
        flat=flatten(network),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_attack_and_defence_it_is_plain_sgd(plain_config, tmp_path, dtype):
    config = plain_config(
        "approach=baseline", "aggregator=mean", "attack=none", "steps=5",
        "optimizer.weight_decay=0.01", "optimizer.nesterov=true",
        "optimizer.decay=0.5", "optimizer.decay_every=2",
    )  # fmt: skip
    experiment, reference = build(config), build(config)
    if dtype == torch.float64:
        experiment, reference = in_float64(experiment), in_float64(reference)
    train(experiment, config, tmp_path)

    network, data = reference.network, reference.dataset
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True
    )
    whole = Batches(data.num_train, 300, 1, seed=0)
    for step in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * 0.5 ** (step // 2)
        samples = whole.file(step, 0)
        loss = cross_entropy(network(data.train_images[samples]), data.train_labels[samples])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(experiment.params, reference.params)
    assert experiment.params.dtype == dtype


@pytest.mark.slow
def test_every_approach_without_an_attack_does_the_same_steps(plain_config, tmp_path):
    """Without lies the vote changes nothing: with the mean, all approaches are plain SGD."""
    ends = {}
    for approach, *more in (
        ("baseline",), ("maj_vote",), ("detox",), ("mols",), ("ramanujan_one",),
        ("ramanujan_two", "K=9"),
    ):  # fmt: skip
        config = plain_config(
            f"approach={approach}", "aggregator=mean", "attack=none", "batch_size=225", "q=1", *more
        )
        experiment = build(config)
        train(experiment, config, tmp_path / approach)
        ends[approach] = experiment.params
    for params in ends.values():
        torch.testing.assert_close(params, ends["baseline"], rtol=1e-4, atol=1e-5)


def test_the_seed_sets_network_and_data_and_nothing_else_does(plain_config):
    state = torch.get_rng_state()
    first, again = build(plain_config()), build(plain_config())
    other = build(plain_config("seed=1"))
    attacked = build(plain_config("attack=constant", "adversary=random"))
    assert torch.equal(first.params, again.params)
    assert torch.equal(first.params, attacked.params)
    assert not torch.equal(first.params, other.params)
    assert torch.equal(first.batches.file(3, 1), attacked.batches.file(3, 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_with_validation_pictures_never_looks_at_the_test_set(plain_config, tmp_path):
    config = plain_config("dataset.num_validation=300")
    ends = []
    for name in ("real", "spoilt"):
        experiment = build(config)
        data = experiment.dataset
        if name == "spoilt":
            data = dataclasses.replace(
                data, test_images=data.test_images[:1], test_labels=torch.tensor([77])
            )
        summary = train(dataclasses.replace(experiment, dataset=data), config, tmp_path / name)
        ends.append([summary[k] for k in ("parameters_sha256", "final_validation_accuracy")])
    assert ends[0] == ends[1]
    assert data.num_train == 1700


def test_num_corrupt_is_computed(run):
    summary = run("q=5")
    assert summary["num_corrupt"] == 8
    assert summary["epsilon_hat"] == pytest.approx(0.32)
    assert summary["byzantine"] == [0, 1, 5, 6, 13]


@pytest.mark.slow
def test_the_worst_set_wins_exactly_num_corrupt_files(run, tmp_path):
    for q, count in {2: 1, 3: 3, 4: 5, 5: 8}.items():
        summary = run(f"q={q}", "attack=constant", folder=tmp_path / str(q))
        records = metrics_of(tmp_path / str(q))
        assert {record["distorted_files"] for record in records} == {count}
        assert summary["num_corrupt"] == count
        assert {record["files_without_majority"] for record in records} == {0}
        assert {tuple(record["byzantine"]) for record in records} == {tuple(summary["byzantine"])}


def test_honest_workers_agree_bit_for_bit(run, tmp_path):
    run("attack=none")
    for record in metrics_of(tmp_path):
        assert record["vote_disagreements"] == 0
        assert record["distorted_files"] == 0


def test_a_tie_has_no_winner_and_is_counted(run, tmp_path):
    """r = 2: a file with one liar has no majority and is left out."""
    run("approach=maj_vote", "K=6", "r=2", "q=1", "attack=constant", "adversary=one_per_group")
    for record in metrics_of(tmp_path):
        assert record["files_without_majority"] == 1
        assert record["distorted_files"] == 0
        assert record["vote_disagreements"] == 1


def test_an_aggregator_must_bear_the_files_that_ties_can_take(cli, tmp_path):
    code, _, err = cli(
        *SMALL, f"output_dir={tmp_path}", "approach=maj_vote", "K=6", "r=2", "q=3",
        "attack=constant", "adversary=one_per_group", "aggregator=mean",
    )  # fmt: skip
    assert code == 2
    assert "leave all f=3 files without a majority" in err


@pytest.mark.slow
def test_below_a_majority_of_every_file_the_mean_is_that_of_a_run_without_liars(run, tmp_path):
    """One liar of mols K=15 r=3 wins no file; the undefended mean of as many files is lost."""
    files = ("aggregator=mean", "batch_size=50")
    honest = run("approach=baseline", "K=25", "q=0", *files, folder=tmp_path / "honest")
    ends = [
        run("approach=mols", "q=1", f"attack={attack}", *files, folder=tmp_path / attack)
        for attack in ("min_max", "infinity")
    ]
    assert {end["num_corrupt"] for end in ends} == {0}
    assert {end["parameters_sha256"] for end in ends} == {honest["parameters_sha256"]}
    lost = run("approach=baseline", "K=25", "q=1", "attack=min_max", *files, folder=tmp_path / "no")
    assert lost["parameters_sha256"] != honest["parameters_sha256"]


@pytest.mark.parametrize(
    ("overrides", "effective", "warning"),
    [
        (["q=3"], True, None),
        (["q=0"], False, "the attack does nothing: nobody lies"),
        (["adversary=none"], False, "the attack does nothing: nobody lies"),
        (["q=1", "attack=reversed_gradient"], False, "every file keeps a majority"),
        (["q=1", "attack=constant", "adversary=random"], False, "every file keeps a majority"),
        (["attack.z=0"], False, "the z of alie is 0"),
        (["attack=none"], False, None),
        (["approach=baseline", "K=6", "q=1"], False, "the z of alie is 0"),
        (["approach=baseline", "K=6", "q=1", "attack.z=1.0"], True, None),
        (["approach=baseline", "q=8", "attack=constant"], True, "no aggregator withstands"),
        (["batch_size=301", "batch_rounding=down"], True, "rounded down to 300"),
    ],
)
def test_pointless_warns_and_goes_on(cli, tmp_path, overrides, effective, warning):
    code, _, err = cli(*SMALL, f"output_dir={tmp_path}", *overrides)
    assert code == 0
    (path,) = tmp_path.glob("*/summary.json")
    assert json.loads(path.read_text())["attack_effective"] is effective
    assert err.count("warning: ") == (warning is not None)
    assert (warning or "") in err


DIVERGING = ("approach=baseline", "aggregator=mean", "attack=constant", "attack.value=1e38")


def test_divergence_is_a_result(run, tmp_path):
    summary = run(*DIVERGING, "steps=20", "optimizer.lr=100")
    assert 1 <= summary["diverged_at_step"] < 20
    assert summary["steps"] == summary["diverged_at_step"]
    assert summary["final_test_accuracy"] <= 0.3
    assert metrics_of(tmp_path)[-1]["test_accuracy"] == summary["final_test_accuracy"]
    again = run(*DIVERGING, "steps=20", "optimizer.lr=100")
    assert again == summary


def test_on_nonfinite_stop_and_skip(cli, run, tmp_path):
    inf = ("approach=baseline", "aggregator=mean", "attack=constant", "attack.value=3e38")
    code, _, err = cli(*SMALL, f"output_dir={tmp_path}/a", *inf, "on_nonfinite=stop")
    assert code == 1
    assert "on_nonfinite=stop" in err
    assert "step 2: 12 of n=15 rows have NaN or Inf, more than num_corrupt=3" in err
    assert "file 7 from workers [7] and 7 files more" in err
    summary = run(*inf, "on_nonfinite=skip_step", folder=tmp_path / "b")
    assert summary["diverged_at_step"] is None
    records = metrics_of(tmp_path / "b")
    assert [record["skipped"] for record in records] == [False, True, True, True]
    assert [record["nonfinite_files"] for record in records] == [0, 12, 12, 12]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_rows_that_are_not_finite_are_set_aside(run, tmp_path, value):
    """The run goes as if the liars' files were missing and nobody lied."""
    settings = ("approach=baseline", "aggregator=trimmed_mean", "worker_momentum=0.5")
    summary = run(*settings, "attack=constant", f"attack.value={value}", folder=tmp_path / "a")
    assert summary["diverged_at_step"] is None
    assert {record["nonfinite_files"] for record in metrics_of(tmp_path / "a")} == {3}
    assert summary["final_test_accuracy"] > 0.2


def test_worker_momentum_is_kept_per_file_after_the_vote(plain_config, tmp_path):
    """Against a plain reading: m_i <- b m_i + (1 - b) g_i, then the mean, then SGD."""
    config = plain_config(
        "approach=baseline", "K=3", "q=0", "aggregator=mean", "attack=none", "worker_momentum=0.9",
        "optimizer.momentum=0", "steps=3", "batch_size=30",
    )  # fmt: skip
    experiment, reference = in_float64(build(config)), in_float64(build(config))
    train(experiment, config, tmp_path)
    network, data, params = reference.network, reference.dataset, reference.params
    memory = torch.zeros(3, len(params), dtype=torch.float64)
    for step in range(3):
        for file in range(3):
            samples = reference.batches.file(step, file)
            loss = cross_entropy(network(data.train_images[samples]), data.train_labels[samples])
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            row = torch.cat([entries_of(gradient) for gradient in gradients])
            memory[file] = 0.9 * memory[file] + 0.1 * row
        params -= 0.05 * memory.mean(dim=0)
    torch.testing.assert_close(experiment.params, params)


def test_detox_shuffles_its_buckets_by_seed_and_step(plain_config):
    experiment = build(plain_config("approach=detox"))
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 40)))
    results = [experiment.defence_at(step)(rows, 1) for step in (0, 0, 1, 2, 3)]
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])


def test_a_rule_of_the_users_own_needs_only_a_target(run, tmp_path, monkeypatch):
    module = tmp_path / "rules_of_a_user.py"
    module.write_text(
        "def middle(rows, num_corrupt: int, scale: float = 1.0):\n"
        "    return scale * rows.median(dim=0).values\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    summary = run("aggregator._target_=rules_of_a_user.middle", "+aggregator.scale=1")
    assert summary["final_test_accuracy"] > 0.1


def test_construct_names_a_missing_argument():
    from byzshield_exp.errors import ConfigError

    with pytest.raises(ConfigError, match=r"approach\.replication is not given"):
        construct("approach", {"_target_": "byzshield_exp.assignments.mols", "num_workers": 15})


ATTACKS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/attack").glob("*.yaml"))


QUICK = {"alie", "min_max", "fang_krum", "alie_optimised", "delayed_gradient", "label_flip"}


@pytest.mark.parametrize(
    "attack",
    [pytest.param(one, marks=[] if one in QUICK else [pytest.mark.slow]) for one in ATTACKS],
)
def test_divergence_is_a_result_under_every_attack(run, tmp_path, attack):
    more = ["attack.delay=1"] if attack == "delayed_gradient" else []
    more += ["attack.warmup=1"] if attack == "mimic" else []
    summary = run(
        "approach=baseline", "q=2", "optimizer.lr=1e30", f"attack={attack}", *more, "K=15",
        "aggregator=mean", folder=tmp_path,
    )  # fmt: skip
    assert summary["diverged_at_step"] is not None


@pytest.mark.parametrize("attack", ["not_a_number", "infinity"])
def test_a_run_whose_values_are_not_numbers_resumes(cli, run, tmp_path, attack):
    run(f"attack={attack}", "steps=2", folder=tmp_path)
    run(f"attack={attack}", folder=tmp_path)
    code, out, err = cli(*SMALL, f"attack={attack}", f"output_dir={tmp_path}")
    assert code == 0, err
    assert "finished" in out
    assert [path.name for path in tmp_path.iterdir()] == [
        path.name for path in tmp_path.iterdir() if "nan" not in path.name
    ]


def test_a_trusted_file_keeps_its_number_in_a_run(run, tmp_path):
    rule = ("approach=baseline", "q=2", "aggregator=monna", "aggregator.trusted=14")
    summary = run(
        *rule, "attack=not_a_number", "adversary=explicit", "adversary.workers=[0,1]",
        folder=tmp_path,
    )  # fmt: skip
    assert summary["diverged_at_step"] is None


@pytest.mark.slow
def test_a_rule_that_returns_something_else_is_one_line(tmp_path):
    (tmp_path / "odd_rules.py").write_text("def odd(rows, num_corrupt: int):\n    return None\n")
    done = run_program(  # apart from the tests' own type checks
        *SMALL, "aggregator=mean", "aggregator._target_=odd_rules.odd", f"output_dir={tmp_path}",
        **modules_in(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        "aggregator=odd_rules.odd must return a tensor [d=2] of torch.float32, got None"
        in done.stderr
    )
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_attack_that_returns_something_else_is_one_line(cli, tmp_path, monkeypatch):
    (tmp_path / "odd_attacks.py").write_text(
        "def odd(knowledge):\n    return knowledge.all_rows()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, _, err = cli(
        *SMALL, "attack=none", "+attack._target_=odd_attacks.odd", f"output_dir={tmp_path}/out"
    )
    assert code == 1
    assert "the attack must return rows of shape" in err


@pytest.mark.slow
def test_a_run_that_resumes_imports_no_compiler(tmp_path):
    """torch's optimizers import it, to tell it to leave them alone: 2 s."""
    code = (
        "import sys\n"
        "from byzshield_exp.commands.run import main\n"
        "for steps in ('1', '2'):\n"
        "    assert main([*sys.argv[1:], f'steps={steps}']) == 0\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    options = (*SMALL[:3], "eval_every=1", "optimizer.momentum=0.5", f"output_dir={tmp_path}")
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resumes after step 1" in done.stdout


@pytest.mark.slow
def test_a_step_that_is_given_up_is_done_again_with_the_same_bits(run, cli, tmp_path, monkeypatch):
    """What outlives a step is not touched before the step is done: here the past parameters."""
    options = (*SMALL[:3], "steps=6", "eval_every=6", "q=5")
    options += ("attack=delayed_gradient", "attack.delay=2")
    undisturbed = run(*options, small=False, folder=tmp_path / "undisturbed")
    collect = Alone.collect

    def lose_a_rank(self, step, statement, lying):
        if step == 4:
            raise LostRank("rank 1 is gone")
        return collect(self, step, statement, lying)

    with monkeypatch.context() as patch:
        patch.setattr(Alone, "collect", lose_a_rank)
        code, _, err = cli(*options, f"output_dir={tmp_path / 'lost'}")
    assert code == 1
    assert "rank 1 is gone; 4 steps are in a checkpoint, the same command resumes" in err
    resumed = run(*options, small=False, folder=tmp_path / "lost")
    assert resumed["parameters_sha256"] == undisturbed["parameters_sha256"]
