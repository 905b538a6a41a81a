"""Files whose operations are recorded and replayed: the bits of the loop."""

from functools import partial

import pytest
import torch
from own_network import truth_of
from pretended_gpu import pretended_gpu
from tape import Recorder
from torch import nn

from byzshield_exp.networks import lenet, mlp, resnet18, vit
from byzshield_exp.training import true_gradients

CASES = {
    "mlp": (partial(mlp, hidden=[16]), "float32"),
    "lenet": (lenet, "float32"),
    "lenet, bf16": (lenet, "bf16"),
    "resnet18, batch": (partial(resnet18, width=8), "float32"),
    "resnet18, batch, bf16": (partial(resnet18, width=8), "bf16"),
    "resnet18, group": (partial(resnet18, width=8, norm="group"), "float32"),
    "vit": (vit, "float32"),
}


def everything(truth, flat):
    """What callers get of a truth, bit for bit, over steps and parameters that change."""
    found = []
    for step in (3, 4):
        truth.begin(step)
        found += [truth.message(file).joined.clone() for file in (4, 0, 2)]
        truth.compute(range(5))
        found += [truth.table.clone(), truth.losses.clone()]
        found.append(truth.poisoned_rows([1, 3], lambda labels, file: (labels + file) % 10))
        found.append(truth.rows_at(1, flat.params * 0.5, [0, 2]))
        flat.params.mul_(0.9)  # in place, as an optimizer does
        flat.statistics.add_(0.1)
    return found


@pytest.mark.parametrize("case", CASES)
def test_replayed_files_have_the_bits_of_the_loop(case):
    network, precision = CASES[case]
    record = Recorder()
    loop, _, its, *_ = truth_of(network, precision=precision)
    replayed, _, other, *_ = truth_of(network, precision=precision, record=record)
    for one, two in zip(everything(loop, its), everything(replayed, other), strict=True):
        assert torch.equal(one.view(torch.int32), two.view(torch.int32))
    assert record.recorded == 1
    assert record.replayed == 2 * (5 + 2 + 2)
    assert replayed.num_computed == loop.num_computed == 10


def test_labels_of_another_form_are_recorded_on_their_own():
    record = Recorder()
    loop, replayed = truth_of(lenet)[0], truth_of(lenet, record=record)[0]

    def soften(labels, file):
        return nn.functional.one_hot(labels, 10).float() * 0.9

    for truth in (loop, replayed):
        truth.begin(0)
        truth.compute([0])
    assert torch.equal(loop.poisoned_rows([0, 1], soften), replayed.poisoned_rows([0, 1], soften))
    assert torch.equal(loop.rows([0, 1]), replayed.rows([0, 1]))
    assert record.recorded == 2


class Looking(nn.Module):
    """A layer that decides by what it sees, for which the program must wait."""

    def forward(self, x):
        return x * 2 if x.mean() > 0 else x


def test_a_network_that_waits_is_computed_in_the_loop_and_said_once(capsys):
    def network(shape, num_classes):
        return nn.Sequential(Looking(), nn.Flatten(), nn.Linear(64, num_classes))

    record = Recorder()
    loop, replayed = truth_of(network)[0], truth_of(network, record=record)[0]
    capsys.readouterr()
    assert torch.equal(loop.rows(), replayed.rows())
    replayed.begin(1)
    replayed.rows()
    assert record.replayed == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: the network's operations cannot be recorded as a CUDA graph (operation not "
        "permitted when stream is capturing): they are started one by one, with the same bits"
    )


def test_a_network_that_draws_random_numbers_is_not_recorded():
    def network(shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, num_classes))

    record = Recorder()
    truth_of(network, seed=3, record=record)[0].rows()
    assert record.recorded == 0


def test_an_error_of_the_network_is_raised_as_it_is():
    def network(shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(63, num_classes))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        truth_of(network, record=Recorder())[0].rows()


def test_a_full_memory_ends_the_run():
    def record(work):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    truth = truth_of(lenet, record=record)[0]
    with pytest.raises(torch.OutOfMemoryError):
        truth.rows()


@pytest.mark.slow
def test_a_whole_run_on_a_pretended_gpu_is_recorded_once_and_replayed(run):
    with pretended_gpu():
        run("device=cuda", "approach=baseline", "K=5", "q=1", "batch_size=20", "attack=alie")
        record = true_gradients.cuda_graph
    assert (record.recorded, record.replayed) == (1, 4 * 5)
