"""Command lines and configurations of other programs: what they become, beside our presets."""

import json
import re
import shlex
from itertools import product
from pathlib import Path

import pytest

from byzshield_exp.commands.migrate import main, translated
from byzshield_exp.commands.migrate.mapping import TABLES, markdown, table
from byzshield_exp.commands.run import main as run_main

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
FIGURE_2 = (
    "mpirun -n 26 --hostfile hosts python distributed_nn.py --approach=rama_two --group-size=5 "
    "--rama-m=5 --worker-fail=3 --byzantine-gen=hard_coded --lis-simulation=simulate "
    "--mode=coord-median --bucket-size=25 --network=ResNet18 --dataset=Cifar10 --batch-size=750 "
    "--max-steps=1040 --lr=0.025 --momentum=0.9 --gamma=0.96 --lr-step=15 --eval-freq=52 "
    "--adversarial=-100 --compress-grad=compress --comm-type=Bcast"
)
BTARD = """
import random
for seed in range(5):
    class config:
        MODEL = ResNet18
        AUGMENT_DATA = True
        GLOBAL_SEED = seed
        NUM_WORKERS = 16
        CCLIP_TAU = tau
        BYZANTINE_PARTICIPANT = partial(
            attack, ban_prob=1. / NUM_WORKERS, attack_start=1000, attack_every=1)
        BYZANTINE_IDS = random.Random(GLOBAL_SEED).sample(range(1, NUM_WORKERS), NUM_BYZANTINES)
        EARLY_STOP_STEPS = 5_100
"""
BYZFL = {
    "benchmark_config": {
        "nb_steps": 2, "nb_training_seeds": 2, "nb_honest_clients": 6, "f": [1, 2],
        "data_distribution": [
            {"name": "gamma_similarity_niid", "distribution_parameter": [1.0, 0.5]}
        ],
    },
    "model": {"name": "cnn_mnist", "dataset_name": "mnist", "learning_rate": [0.1, 0.2]},
    "aggregator": [
        {"name": "GeometricMedian", "parameters": {"nu": 0.1, "T": 3}},
        {"name": "TrMean"},
        {"name": "CenteredClipping", "parameters": {"tau": [1.0, 10.0]}},
    ],
    "pre_aggregators": [{"name": "Clipping", "parameters": {"c": 3.0}}, {"name": "NNM"}],
    "attack": [{"name": "SignFlipping"}, {"name": "Optimal_ALittleIsEnough"}],
    "honest_clients": {"batch_size": 25},
    "evaluation_and_results": {"store_models": False},
}  # fmt: skip


@pytest.fixture
def config_json(tmp_path):
    """Write ByzFL's file with some of its parts changed: ``config_json(model={...}) -> path``."""

    def write(**parts):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**BYZFL, **parts}))
        return str(path)

    return write


def command_of(*arguments):
    """The overrides of the only command."""
    (command,), _ = translated(arguments)
    return shlex.split(command)[2:]


def points(command):
    """The single runs of a command, by hand."""
    words = [word for word in shlex.split(command)[2:] if word != "-m"]
    lists = [
        [word] if "=[" in word else [f"{word.partition('=')[0]}={one}" for one in values]
        for word in words
        for values in [word.partition("=")[2].split(",")]
    ]
    return product(*lists)


def test_a_command_of_figure_2_is_our_preset(plain_config):
    theirs = plain_config(*command_of("--", *shlex.split(FIGURE_2)), small=False)
    curve = (
        "approach=ramanujan_two aggregator=median q=3 optimizer.lr=0.025 optimizer.decay=0.96 "
        "optimizer.decay_every=15"
    )
    ours = plain_config("experiment=byzshield/fig02", *curve.split(), small=False)
    ours["approach"]["m"] = 5  # what null means
    assert differing(theirs, ours) <= {"choices", "command"}


def differing(one, other):
    return {key for key in one | other if one.get(key) != other.get(key)}


@pytest.mark.parametrize(
    ("arguments", "experiment", "curve"),
    [
        (
            "NUM_BYZANTINES=7 BYZANTINE_PARTICIPANT=SignFlipper EARLY_STOP_STEPS=5_100",
            "btard/fig_sign_flip", "approach=btard aggregator.tau=1.0",
        ),
        (
            "MODEL=Net NUM_WORKERS=6 NUM_BYZANTINES=2 BATCH_SIZE_PER_WORKER=256 BASE_LR=0.05 "
            "CCLIP_TAU=5.0 attack_start=100 BYZANTINE_PARTICIPANT=GaussianNoiseAdder "
            "AUGMENT_DATA=False COSINE_T_MAX_RATE=1.0",
            "l46/aggressive", "attack=scalar_noise",
        ),
    ],
    ids=["btard", "l46"],
)  # fmt: skip
def test_variables_of_btard_are_our_presets(plain_config, arguments, experiment, curve):
    theirs = plain_config(*command_of("--btard", *arguments.split()), small=False)
    ours = plain_config(f"experiment={experiment}", *curve.split(), small=False)
    assert theirs["aggregator"].pop("iterations") == 500
    assert ours["aggregator"].pop("iterations") is None
    assert theirs["adversary"]["start"] == ours["adversary"]["start"]
    if experiment.startswith("l46"):
        assert theirs["optimizer"].pop("horizon") == 936  # theirs, of 940 steps
        assert ours["optimizer"].pop("horizon") == 940
        assert theirs["protocol"] == ours["protocol"]
    assert differing(theirs, ours) <= {"choices", "command", "adversary", "protocol"}


# Drawn by Python's random.Random(seed).sample(range(1, n), b).
@pytest.mark.parametrize(
    ("seed", "workers", "liars", "who"),
    [
        (0, 16, 7, "[1,5,7,9,13,14,15]"), (4, 16, 7, "[2,3,4,5,7,8,12]"), (1, 16, 3, "[3,10,13]"),
        (2, 6, 2, "[1,5]"),
    ],
)  # fmt: skip
def test_the_liars_of_btard_are_the_same_peers(seed, workers, liars, who):
    given = (f"GLOBAL_SEED={seed}", f"NUM_WORKERS={workers}", f"NUM_BYZANTINES={liars}")
    assert f"adversary.workers={who}" in command_of("--btard", *given)


def test_a_file_of_btard_with_what_it_computes(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(BTARD)
    rest = ["NUM_BYZANTINES=3", "BYZANTINE_PARTICIPANT=DelayedGradientAttacker"]
    found = command_of("--btard", str(path), "GLOBAL_SEED=1", "CCLIP_TAU=10", *rest)
    assert {"K=16", "q=3", "adversary.workers=[3,10,13]", "attack=delayed_gradient"} <= set(found)
    assert {"attack.delay=1000", "adversary.start=1001", "adversary.stop=1501"} <= set(found)
    assert {"aggregator.tau=10", "steps=5100", "optimizer.horizon=25000"} <= set(found)
    notebook = {"cells": [{"cell_type": "code", "source": ["%env A=1\n", BTARD]}]}
    path.with_suffix(".ipynb").write_text(json.dumps(notebook))
    again = ["--btard", str(path.with_suffix(".ipynb")), "GLOBAL_SEED=1", "CCLIP_TAU=10", *rest]
    assert command_of(*again) == found
    with pytest.raises(ValueError, match=r"GLOBAL_SEED = seed|GLOBAL_SEED=seed"):
        translated(["--btard", str(path)])


# By hand from their code: which batch, rule, attack and liars a command line means.
FLAGS = {
    "--approach mols --worker-fail 3": "approach=mols K=25 r=5 q=3 batch_size=128 "
    "batch_rounding=down adversary=random attack=reversed_gradient aggregator=mean steps=10000 "
    "optimizer.lr=0.01 optimizer.momentum=0.5 network.hidden_relu=false",
    "-n 16 --approach=baseline --batch-size=50 --err-mode=foe --mode=coord-median "
    "--group-size=3": "approach=baseline K=15 batch_size=750 attack=foe aggregator=median",
    "-n 16 --approach=draco_lite --group-size=3 --batch-size=50 --mode=coord-median "
    "--bucket-size=5": "approach=detox aggregator=median batch_size=250",
    "-n 46 --approach=draco_lite --group-size=3 --mode=coord-median --bucket-size=5":
    "approach=detox aggregator=median_of_means aggregator.num_buckets=5 batch_size=1920",
    "-n 16 --approach=draco_lite_attack --detox-attack=benign --group-size=3 --mode=bulyan":
    "adversary=one_per_group aggregator=bulyan_byzshield",
    "--approach=maj_vote --group-size=3 --lis-simulation=simulate --err-mode=constant "
    "--gamma=0.9 --lr-step=5": "approach=maj_vote attack=constant aggregator=mean",
    "--approach=mols --group-size=3 --train-dir=/tmp/a/": "r=3 output_dir=/tmp/a",
}  # fmt: skip


@pytest.mark.parametrize("line", FLAGS)
def test_flags_become(line):
    found = set(command_of("--", *shlex.split(line)))
    assert set(FLAGS[line].split()) <= found
    assert not any(one.startswith("optimizer.decay") for one in found)


def test_detox_has_a_schedule_of_its_own():
    line = ["--approach", "baseline", "--gamma", "0.5", "--lr-step", "3"]
    found = command_of("--detox", "K=45", "--", *line)
    assert {"optimizer.decay=0.99", "optimizer.decay_every=10000", "K=45"} <= set(found)
    assert "batch_size=5760" in found


def test_byzfl_sweeps_become_lists_and_commands(config_json):
    commands, lines = translated([config_json()])
    assert len(commands) == 8  # f, rules with and without parameters, attacks with and without
    shared = {
        "approach=baseline", "seed=0,1", "optimizer.lr=0.1,0.2", "worker_momentum=0.9",
        "optimizer.momentum=0.0", "pre_aggregator=[static_clip,nnm]",
        "pre_aggregator.static_clip.max_norm=3.0", "dataset.num_validation=12000",
    }  # fmt: skip
    for command in commands:
        assert shared <= set(shlex.split(command))
        assert command.startswith("byzshield run -m ")
    for part in (
        "K=7 q=1 batch_size=175", "K=8 q=2 batch_size=200", "attack=ipm attack.epsilon=1.0",
        "attack=alie_optimised", "aggregator=geometric_median_byzfl,trimmed_mean",
        "aggregator=centered_clip_byzfl aggregator.tau=1.0,10.0 dataset",
    ):  # fmt: skip
        assert sum(part in command for command in commands) == 4
    (distribution,) = [one for one in lines if "data_distribution " in one.theirs]
    assert distribution.ours == "-"
    assert "no equivalent of gamma_similarity_niid 0.5" in distribution.remark


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"milestones": [1, 2], "learning_rate_decay": 0.5}, "decay=0.5 optimizer.decay_every=1"),
        ({"optimizer_name": "RMSprop"}, "_target_=torch.optim.RMSprop"),
    ],
)
def test_byzfl_optimizers(config_json, model, expected):
    (command, *_), _ = translated([config_json(model={**BYZFL["model"], **model})])
    assert f"optimizer.{expected}" in command


EXAMPLES = [
    ["--", *shlex.split(FIGURE_2)],
    *(["--", *shlex.split(line)] for line in FLAGS),
    ["--detox", "K=45", "--", *["--approach", "baseline", "--mode", "multi-krum"]],
    ["--btard"],
    ["--btard", *["MODEL=Net", "NUM_WORKERS=6", "NUM_BYZANTINES=2", "ban_prob=0.1"]],
    ["--btard", "BYZANTINE_PARTICIPANT=DelayedGradientAttacker"],
]


@pytest.mark.parametrize("arguments", EXAMPLES, ids=range(len(EXAMPLES)))
def test_what_is_printed_composes(arguments, plain_config):
    for command in translated(arguments)[0]:
        for point in points(command):
            plain_config(*point, small=False)


def test_what_is_printed_for_byzfl_composes(config_json, plain_config):
    for command in translated([config_json()])[0][::3]:
        plain_config(*next(iter(points(command))), small=False)


SHORT = ["dataset=digits", "network=mlp", "steps=2", "device=cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["byzshield", "byzfl", "btard"])
def test_what_is_printed_runs(source, config_json, cli, tmp_path):
    ours = [*SHORT, f"output_dir={tmp_path / 'outputs'}"]
    arguments = {
        "byzshield": [*ours, "--", *shlex.split(FIGURE_2)],
        "byzfl": [
            config_json(benchmark_config={"nb_honest_clients": 6, "f": 1}),
            *ours,
            "optimizer.lr=0.1",
        ],
        "btard": ["--btard", *ours, "attack_start=0"],
    }[source]
    code, out, err = cli(*shlex.split(translated(arguments)[0][0])[2:])
    assert code == 0, err
    assert "test accuracy" in out


BAD = {
    "-- --worker-fial 3": "--worker-fial: ByzShield and DETOX has no such setting; did you mean "
    "'--worker-fail'?",
    "-- --lr=fast": "--lr=fast must be a number",
    "-- --approach=molls": "--approach=molls must be one of baseline, maj_vote, draco_lite",
    "-- --approach=cyclic": "--approach=cyclic has no equivalent: DRACO's cyclic code",
    "-- --group-size 0": "--group-size=0 must be at least 1",
    "-- --lr": "--lr needs a value",
    "-- mols": "mols: flags are --name=value or --name value",
    "-- -n 1": "-n=1 must be at least 2",
    "KK=3 -- --lr 1": "KK=3: there is no such key here",
    "--lr 1": "flags of ByzShield and DETOX stand after --",
    "--btard NUM_WORKER=3": "NUM_WORKER: BTARD and L46 has no such setting; did you mean",
    "--btard NUM_WORKERS=many": "NUM_WORKERS=many must be a whole number",
    "--btard NUM_WORKERS=3 NUM_BYZANTINES=3": "NUM_BYZANTINES=3 must lie in 0 to",
    "--btard COSINE_T_MAX_RATE=1e400": "COSINE_T_MAX_RATE=inf must be at least 0, and finite",
    "--btard nothing.py": "nothing.py: cannot be read",
    "nothing.json": "nothing.json: cannot be read",
    "a.json b.json": "give one configuration file",
    "table=garfield": "table must be one of byzshield, byzfl, btard",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert BAD[line] in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"aggregator": {"name": "TrMeen"}}, "did you mean 'TrMean'?"),
        ({"aggregator": {"name": "Krum", "parameters": {"k": 1}}}, "Krum has no parameter k"),
        ({"model": {"nam": "cnn_mnist"}}, "model.nam: ByzFL has no such setting; did you mean"),
        ({"modell": {"name": "cnn_mnist"}}, "modell: ByzFL has no such part; did you mean 'model'"),
        ({"model": {"name": "cnn_cifar"}}, "model.name=cnn_cifar has no equivalent: it is not"),
        ({"benchmark_config": {"f": "two"}}, 'f="two" must be a whole number'),
        ({"benchmark_config": {"f": []}}, "benchmark_config.f=[] must have a value"),
        ({"benchmark_config": {"size_train_set": float("nan")}}, "=nan must be at least 0"),
        ({"aggregator": []}, "aggregator=[] must have a value"),
        ({"model": {"milestones": [0]}}, "model.milestones=[0] must be a list of steps"),
        ({"model": {"optimizer_name": ["SGD"]}}, 'optimizer_name=["SGD"]: give one value'),
        (
            {"benchmark_config": {"training_algorithm": {"name": "FedAvg"}}},
            "training_algorithm.name=FedAvg has no equivalent",
        ),
    ],
)
def test_a_bad_byzfl_file_is_one_line(config_json, capsys, parts, said):
    assert main([config_json(**parts)]) == 2
    out, err = capsys.readouterr()
    assert (out, said in err, len(err.splitlines())) == ("", True, 1)


def test_what_has_no_equivalent_can_be_chosen(config_json):
    path = config_json(model={"name": "cnn_cifar", "dataset_name": "emnist"})
    (command, *_), _ = translated([path, "network=mlp", "dataset=synthetic"])
    assert "network=mlp dataset=synthetic" in command
    assert "dataset.root" not in command


def test_the_page_has_the_tables():
    page = PAGE.read_text()
    for name in TABLES:
        assert markdown(table(name)) in page, (
            f"docs/migration.md needs: byzshield migrate table={name}"
        )


def test_the_commands_of_the_page_print_what_it_says(capsys):
    found = re.findall(r"^\$ byzshield migrate (.+)\n(byzshield run .+)$", PAGE.read_text(), re.M)
    assert len(found) >= 2
    for line, first in found:
        assert main(shlex.split(line)) == 0
        assert capsys.readouterr().out.splitlines()[0] == first


def test_the_command_shows_its_configuration(capsys):
    """As a person would look at it: --cfg job."""
    command, *_ = translated(["--", *["--approach", "mols", "--worker-fail", "3"]])[0]
    assert run_main([*shlex.split(command)[2:], "--cfg", "job"]) == 0
    assert "\nK: 25\n" in capsys.readouterr().out
