"""What holds for every attack."""

import inspect
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from running import SMALL, run_program
from test_attacks import Rows, knowledge

from byzshield_exp import attacks
from byzshield_exp.aggregators import Defence, centered_clip
from byzshield_exp.assignments import baseline, mols
from byzshield_exp.attacks import alie, gaussian
from byzshield_exp.attacks.truth import Truth
from byzshield_exp.datasets import Batches, synthetic
from byzshield_exp.distortion import worst_case
from byzshield_exp.networks import flatten, mlp
from byzshield_exp.training.gradients import TrueGradients

WRAPPERS = ("majorities_only", "fixed_disagreement")
OPTIONS = {"delayed_gradient": {"delay": 3}, "mimic": {"warmup": 2}}
ANEW = {"gaussian", "gaussian_noise", "scalar_noise", "label_shuffle", "fang_trimmed_mean"}
FUNCTIONS = {
    name: function
    for name, function in vars(attacks).items()
    if inspect.isfunction(function)
    and next(iter(inspect.signature(function).parameters)) == "knowledge"
}
BOUND = {
    **{
        name: partial(function, **OPTIONS.get(name, {}))
        for name, function in FUNCTIONS.items()
        if name not in (*WRAPPERS, "mixed")
    },
    **{f"{name}-alie": partial(FUNCTIONS[name], attack=partial(alie, z=1.0)) for name in WRAPPERS},
    **{f"{name}-noise": partial(FUNCTIONS[name], attack=gaussian) for name in WRAPPERS},
    "min_max-unit": partial(FUNCTIONS["min_max"], direction="unit"),
    "min_sum-sign": partial(FUNCTIONS["min_sum"], direction="sign"),
    "alie-honest": partial(alie, z=1.0, ddof=1, population="honest"),
    "alie-liars": partial(alie, z=1.0, population="liars"),
    "noise-relative": partial(FUNCTIONS["gaussian_noise"], sigma=0.1, relative=True),
    "random_direction-global": partial(FUNCTIONS["random_direction"], scope="global"),
}
LIARS = worst_case(mols(15, 3), 4).workers
each = pytest.mark.parametrize("name", sorted(BOUND))


def table(dtype=torch.float32, files=25, size=40):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((files, size))).to(dtype)


def make(name, rows, files, liars=LIARS, step=5, assignment=None):
    return BOUND[name](knowledge(rows, assignment or mols(15, 3), liars, files, step=step))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_attack_says_what_it_knows_and_where_it_is_from(name):
    text = inspect.getdoc(FUNCTIONS[name])
    said = re.findall(r"^Knows: (.*)$", text, flags=re.MULTILINE)
    known = ("own gradients", "all honest gradients", "the defence", "nothing", "what the wrapped")
    assert len(said) == 1
    assert said[0].startswith(known)
    assert "Source:" in text


@pytest.mark.parametrize("name", sorted(set(BOUND) - {"mimic"}))  # its victim is chosen at step 0
def test_absent_workers_are_left_out(name):
    """The last two of eight are absent: the lies are those of six."""
    rows, liars, aggregator = table(files=8), (0, 3), Defence(partial(centered_clip))
    eight, six = (
        knowledge(Rows(rows[:n], [40]), baseline(n), liars, liars, 5, defence=aggregator, **more)
        for n, more in ((8, {"absent": (6, 7)}), (6, {}))
    )
    torch.testing.assert_close(BOUND[name](eight), BOUND[name](six))


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_have_the_truths_form_and_leave_it_alone(name, dtype):
    rows = Rows(table(dtype), [30, 5, 4, 1])
    forged = make(name, rows, (3, 7, 8))
    assert forged.shape == (3, 40)
    assert forged.dtype == dtype
    assert torch.isfinite(forged).all()
    assert torch.equal(rows.table, table(dtype))


@each
def test_a_row_depends_on_the_file_and_not_on_who_asks(name):
    """Colluders on different processes hold different files and must send the same bytes."""
    files = tuple(range(25))
    whole = make(name, Rows(table(), [30, 5, 4, 1]), files)
    for asked in ((7,), (8, 3), (24, 0, 11, 12)):
        part = make(name, Rows(table(), [30, 5, 4, 1]), asked)
        assert torch.equal(part.view(torch.int32), whole[list(asked)].view(torch.int32))


@each
def test_noise_is_new_at_every_step_and_nothing_else_changes(name):
    rows, files = Rows(table(), [30, 5, 4, 1]), tuple(range(25))
    first, again, later = (make(name, rows, files, step=step) for step in (5, 5, 6))
    assert torch.equal(first, again)
    if name != "delayed_gradient":
        assert torch.equal(first, later) is not (name in ANEW or "noise" in name)


@each
@pytest.mark.parametrize("liars", [(), (2,), (0, 1, 2, 3, 4, 5)])
def test_nobody_or_everybody_lying_makes_no_nan(name, liars):
    if name == "alie" and len(liars) > 3:
        pytest.skip("its z is unbounded, which is an error of its own")
    forged = make(name, Rows(table(files=6), [30, 5, 4, 1]), liars, liars, 5, baseline(6))
    assert forged.shape == (len(liars), 40)
    assert torch.isfinite(forged).all()


@each
def test_a_single_honest_row_makes_no_nan(name):
    if name == "alie":
        pytest.skip("its z is unbounded, which is an error of its own")
    forged = make(name, Rows(table(files=2), [30, 5, 4, 1]), (0,), (0,), 5, baseline(2))
    assert torch.isfinite(forged).all()


def real_truth():
    torch.manual_seed(0)
    data = synthetic(num_train=400, num_test=1)
    network = mlp(data.shape, 10, hidden=[8])
    params = flatten(network).params
    return TrueGradients(network, data, Batches(400, 100, 25, seed=0), 25, 2), params


def test_true_gradients_are_a_truth():
    assert isinstance(real_truth()[0], Truth)
    assert isinstance(Rows(table()), Truth)


@each
@pytest.mark.parametrize("step", [0, 4])
def test_honest_batches_and_rows_do_not_know_of_the_attack(name, step):
    (plain, start), (attacked, params) = real_truth(), real_truth()
    plain.begin(step)
    attacked.begin(step)
    past = {0: start, 1: start / 2}
    seen = knowledge(attacked, mols(15, 3), LIARS, (0, 7, 13), step, past=past.__getitem__)
    BOUND[name](seen)
    assert torch.equal(params, start)
    assert torch.equal(attacked.rows().view(torch.int32), plain.rows().view(torch.int32))
    assert torch.equal(attacked.losses, plain.losses)
    assert attacked.num_computed == plain.num_computed == 25
    for file in range(25):
        mine, other = (truth._batches.file(step, file) for truth in (attacked, plain))
        assert torch.equal(mine, other)


CONF = Path(__file__).parents[2] / "conf" / "attack"
DRAWN = ["fang_trimmed_mean", "gaussian", "label_shuffle", "min_max"]  # numbers and searches


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(DRAWN, marks=pytest.mark.slow, id="some"),
        pytest.param(
            sorted(path.stem for path in CONF.glob("*.yaml")), marks=pytest.mark.thorough, id="all"
        ),
    ],
)
def test_attacks_end_with_the_same_bits_in_three_processes(cli, tmp_path, names):
    """Liars of two processes share files here; the vote sees that they agree."""
    points = ("-m", *SMALL, "q=5", "aggregator=median", f"attack={','.join(names)}")
    code, _, err = cli(*points, f"output_dir={tmp_path}/one")
    assert code == 0, err
    torchrun = ("--standalone", "--nproc-per-node=3", "-m", "byzshield_exp")
    done = run_program(
        *torchrun, *points, f"output_dir={tmp_path}/three",
        module="torch.distributed.run", timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, three = (
        {
            path.parent.name.replace("cluster=processes,", ""): (
                json.loads(path.read_text())["parameters_sha256"]
            )
            for path in (tmp_path / folder).glob("*/summary.json")
        }
        for folder in ("one", "three")
    )
    assert len(one) == len(names)
    assert one == three
