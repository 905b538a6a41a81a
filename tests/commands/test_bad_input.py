"""Each mistake is one line that names the key, its value and the bound; nothing has started."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import SMALL, run_program

from byzshield_exp.commands.choices import conf_dir

CASES = {
    "K does not fit": (["K=16"], "K=16 r=3; nearest are K=15 (l=5), K=21 (l=7)"),
    "q > K": (["q=16"], "q=16 must be at most K=15"),
    "q < 0": (["q=-1"], "q=-1 must be at least 0"),
    "batch": (["batch_size=301"], "batch_size=301 does not split into f=25 equal files"),
    "batch type": (["batch_size=many"], "batch_size='many' must be auto or a whole number"),
    "krum": (["aggregator=krum", "q=7"], "needs n >= 2*num_corrupt+3, got n=25 num_corrupt=14"),
    "bulyan": (["aggregator=bulyan", "q=6"], "needs n >= 4*num_corrupt+3, got n=25 num_corrupt=12"),
    "trimmed": (["aggregator=trimmed_mean", "q=7"], "n > 2*num_corrupt"),
    "rule's type": (
        ["aggregator=multi_krum", "aggregator.m=abc"],
        "aggregator=multi_krum m='abc' must be a number or like n, n-c, n-c-2",
    ),
    "rule's bool": (
        ["aggregator=multi_krum", "aggregator.m=true"],
        "aggregator.m=True must be int or str",
    ),
    "rule's bound": (
        ["aggregator=multi_krum", "aggregator.m=40"],
        "needs 1 <= m <= n, got m=40 n=25",
    ),
    "rule's argument": (
        ["aggregator=multi_krum", "aggregator.mm=1"],
        "unknown key aggregator.mm, aggregator has m",
    ),
    "forced argument": (["+aggregator.trim=1"], "aggregator.trim=1: unknown argument"),
    "argument of another choice": (
        ["network.hidden=[4]", "network._target_=torch.nn.Flatten"],
        "network.hidden=[4]: unknown argument of torch.nn.modules.flatten.Flatten, known are "
        "start_dim, end_dim; ~network.hidden leaves out what the choice has",
    ),
    "num_corrupt is computed": (
        ["+aggregator.num_corrupt=1"],
        "aggregator.num_corrupt=1: unknown argument",
    ),
    "attack's bound": (
        ["attack=fang_trimmed_mean", "attack.b=0.5"],
        "attack=fang_trimmed_mean needs b >= 1, got b=0.5",
    ),
    "noise": (["attack=gaussian", "attack.std=-1"], "attack=gaussian needs std >= 0, got std=-1"),
    "z is no number": (["attack=alie", "attack.z=nan"], "attack=alie needs a finite z, got z=nan"),
    "inner attack": (
        ["attack=majorities_only", "attack.attack=alie"],
        "attack.attack='alie': choose it with attack@attack.attack=NAME",
    ),
    "twice": (
        ["pre_aggregator=[nnm,nnm]"],
        "pre_aggregator=[nnm,nnm]: each pre-aggregator can be chosen once",
    ),
    "radius": (
        ["aggregator=centered_clip", "aggregator.tau=abc"],
        "aggregator.tau='abc' must be float or auto",
    ),
    "set aside": (
        ["approach=baseline", "q=2", "aggregator=krum", "aggregator.neighbours=14"],
        "got neighbours=14 n=13 num_corrupt=0 (q=2 workers can win 2 of f=15 files; 2 rows set",
    ),
    "trusted": (
        ["aggregator=monna", "aggregator.trusted=25"],
        "aggregator=monna trusted=25 is not among the rows",
    ),
    "trusted bucket": (
        ["aggregator=monna", "pre_aggregator=bucketing"],
        "aggregator=monna trusts a row: after bucketing there are none",
    ),
    "tuned attack's bound": (
        ["attack=alie_optimised", "attack.evaluations=1"],
        "attack=alie_optimised needs highest > 0 and evaluations >= 4, got highest=10.0",
    ),
    "choice": (["attack=alei"], "attack=alei: no such choice, there are alie, alie_blades"),
    "experiment": (["experiment=nope"], "experiment=nope: no such choice"),
    "group": (["attck=alie"], "unknown key attck; did you mean 'attack'?"),
    "key": (["stpes=3"], "unknown key stpes; did you mean 'steps'?"),
    "forced key": (["+stpes=3"], "stpes"),
    "key of a choice": (["lr=0.1"], "unknown key lr; did you mean 'optimizer.lr'?"),
    "forced key of a choice": (["+lr=0.1"], "unknown key lr; did you mean 'optimizer.lr'?"),
    "key of a typed choice": (["network=mlp", "hiden=[1]"], "did you mean 'network.hidden'?"),
    "key of another choice": (["root=x"], "did you mean 'dataset.root' of dataset=cifar10?"),
    "capital": (["Q=3"], "unknown key Q; did you mean 'q'?"),
    "misspelt group of a key": (["optimiser.lr=1"], "did you mean 'optimizer.lr'?"),
    "verb": (["evaluate"], "evaluate: arguments are key=value; evaluate is a verb"),
    "choice alone": (["krum"], "krum is a choice of aggregator: byzshield run aggregator=krum"),
    "two lengths": (["epochs=2", "steps=9"], "epochs=2 and steps=9: give one of them"),
    "epochs": (["epochs=0"], "epochs=0 must be a number above 0, or null"),
    "sub key": (["optimizer.lrr=3"], "unknown key optimizer.lrr"),
    "type": (["K=abc"], "K: Value 'abc' of type 'str' could not be converted to Integer"),
    "data": (
        ["dataset=mnist", "dataset.root=nowhere"],
        "dataset.root=nowhere has no MNIST/raw/train-images",
    ),
    "fetched by": (
        ["dataset=svhn", "dataset.root=nowhere"],
        "byzshield prepare dataset=svhn dataset.root=nowhere",
    ),
    "no download": (["dataset=mnist", "dataset.download=true"], "unknown key dataset.download"),
    "arrays": (["dataset=npz"], "dataset.file is not given"),
    "pictures": (
        ["dataset=image_folder", "dataset.root=nowhere"],
        "dataset.root=nowhere has no folder train",
    ),
    "augment": (
        ["dataset=cifar10", "dataset.augment=flip"],
        "dataset.augment='flip' must be one of none, crop, crop_flip",
    ),
    "validation": (
        ["dataset.num_validation=2000"],
        "num_validation=2000 must lie between 0 and 1999",
    ),
    "output": (["output_dir=pyproject.toml/x"], "output_dir=pyproject.toml/x cannot be written"),
    "processes": (
        ["cluster=processes", "cluster.num_processes=17"],
        "cluster.num_processes=17 must lie between 2 and K+1=16",
    ),
    "one process": (
        ["cluster=processes", "cluster.num_processes=1"],
        "cluster.num_processes=1 must lie between 2",
    ),
    "local": (["cluster.num_processes=4"], "use cluster=processes"),
    "majority_of": (["cluster.majority_of=most"], "majority_of=most must be one of all, present"),
    "bucket": (["cluster.bucket_mib=0"], "cluster.bucket_mib=0.0 must lie in [1/1024, 1024]"),
    "big bucket": (["cluster.bucket_mib=1025"], "cluster.bucket_mib=1025.0 must lie in [1/1024"),
    "tf32": (["precision=tf32"], "precision=tf32 needs device=cuda"),
    "precision": (["precision=fp8"], "precision=fp8 must be one of float32, tf32, bf16"),
    "rtol": (["vote=tolerant", "vote.rtol=-1"], "vote.rtol=-1.0 must"),
    "profile": (["profile=all"], "profile=all must be one of false, true, metrics"),
    "z": (["attack.z=abc"], "attack.z='abc' must be float or null"),
    "z unbounded": (["q=8"], "q=8 of K=15: it needs q <= 7"),
    "explicit": (["adversary=explicit"], "adversary.workers is not given"),
    "explicit number": (
        ["adversary=explicit", "adversary.workers=[1]"],
        "workers=[1] names 1 workers, but q=3",
    ),
    "explicit range": (["adversary=explicit", "adversary.workers=[1,2,15]"], "from 0 to 14"),
    "groups": (["adversary=whole_group"], "no groups"),
    "optimizer": (["optimizer.lr=-1"], "lr=-1"),
    "optimizer type": (["optimizer.lr=fast"], "optimizer.lr='fast' must be float"),
    "nesterov": (
        ["optimizer.nesterov=true", "optimizer.momentum=0"],
        "nesterov=true needs momentum > 0",
    ),
    "network": (["network.hidden=[0]"], "hidden=[0]"),
    "pre-rule": (
        ["+pre_aggregator.foo=1"],
        "pre_aggregator.foo=1: no such pre-aggregator is chosen",
    ),
    "no attack": (["attack=none", "+attack.z=1"], "attack.z=1: attack=none takes no arguments"),
    "left out": (["~attack"], "attack is not chosen"),
    "other K": (["approach.num_workers=21"], "K=15: the placement is for K=21 workers"),
    "launcher": (["hydra/launcher=byzshield_slurm"], "works in a sweep only: add -m"),
    "composite": (["K=18"], "nearest are K=15 (l=5), K=21 (l=7)"),
    "plane": (
        ["approach=affine_plane"],
        "affine_plane needs r a prime power and K = r*r, got K=15",
    ),
    "custom": (["approach=custom", "approach.path=no.npy"], "approach.path=no.npy cannot be read"),
    "several": (["threads=0", "keep=0"], "threads=0 must be at least 1; keep=0 must be at least 1"),
    "momentum": (["worker_momentum=1"], "worker_momentum=1.0 must lie in [0, 1)"),
    "policy": (["on_nonfinite=hope"], "on_nonfinite=hope must be one of finish, stop, skip_step"),
    "m": (["approach=ramanujan_two", "K=25", "r=5", "approach.m=7"], "m=7 r=5"),
    "target": (["aggregator._target_=byzshield_exp.aggregators.nope"], "cannot be imported"),
    "target is no function": (
        ["aggregator._target_=byzshield_exp.aggregators.__doc__"],
        "is not a function",
    ),
    "grammar": (["foo"], "foo"),
}


@pytest.mark.parametrize(("overrides", "message"), CASES.values(), ids=CASES)
def test_bad_input_is_one_line(cli, tmp_path, overrides, message):
    where = (
        () if any(o.startswith("output_dir") for o in overrides) else (f"output_dir={tmp_path}",)
    )
    code, out, err = cli(*SMALL, *where, *overrides)
    assert code == 2, err
    assert message in err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("byzshield_exp: ")
    assert out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu(cli):
    code, _, err = cli("device=cuda")
    assert (code, err) == (2, "byzshield_exp: device=cuda: torch sees no GPU on this machine\n")


@pytest.mark.slow
def test_the_real_program_fails_in_one_line():
    done = run_program("K=16", timeout=30)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_traceback_on_demand():
    done = run_program("K=16", timeout=30, HYDRA_FULL_ERROR="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_sweep_into_a_folder_that_cannot_be_written(cli, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = cli("-m", *SMALL, "q=1,2", f"output_dir={tmp_path}/file/below")
    assert code == 2
    assert err.count(f"{tmp_path}/file/below") == 4  # folder and reason, of both
    assert "2 of 2 points cannot run" in err


@pytest.mark.slow
def test_a_run_leaves_nothing_in_the_working_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "byzshield_exp", *SMALL, f"output_dir={tmp_path}/out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_help_lists_groups_and_keys():
    done = run_program("--help", timeout=30)
    assert done.returncode == 0
    for word in (
        "(who lies): explicit, fixed_random",
        "aggregator (",
        "worker_momentum",
        "torchrun",
    ):
        assert word in done.stdout


def test_help_shows_the_comments_of_every_key():
    """As they stand in the file, also those of several lines."""
    text = Path(conf_dir(), "config.yaml").read_text().partition("hydra:")[0]
    text = re.sub(r"\n +#", "", text.partition("  - override")[2])
    keys = re.findall(r"^(\w+): (\S+) *#?(.*)$", text, flags=re.MULTILINE)
    shown = " ".join(run_program("run", "--help", timeout=30).stdout.split())
    assert len(keys) > 20
    for key, value, comment in keys:
        assert comment, key
        assert f" {key}={value} {' '.join(comment.split())}" in shown


@pytest.mark.slow
def test_workers_do_not_import_what_only_the_driver_needs():
    code = (
        "import sys; import byzshield_exp.launch.ranks\n"
        "import byzshield_exp.networks, byzshield_exp.datasets\n"
        "bad = {'hydra', 'omegaconf', 'rich', 'tensorboard', 'sklearn', 'torchvision', 'scipy',"
        " 'numba', 'boto3', 'submitit', 'torch.utils.tensorboard', 'torch._dynamo'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
