"""A file's gradient as a CUDA graph: the bits of the loop, and what cannot be recorded."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from byzshield_exp.datasets import Batches, synthetic
from byzshield_exp.networks import flatten, lenet, resnet18
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.replay import cuda_graph
from byzshield_exp.training.task import prepare_gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU"),
]


def truth_on(network, precision="float32", record=cuda_graph):
    """The gradients of five files of 10 pictures, and the flat vector."""
    prepare_gpu()
    torch.manual_seed(0)
    data = synthetic(num_train=200, num_test=1, size=16)
    made = network(data.shape, 10).to("cuda").train()
    flat = flatten(made)
    on_it = {name: part.to("cuda") for name, part in vars(data).items() if torch.is_tensor(part)}
    batches = Batches(200, 50, 5, seed=0)
    truth = TrueGradients(
        made, replace(data, **on_it), batches, 5, precision=precision, record=record
    )
    return truth, flat


def everything(truth, flat):
    """What callers get of a truth over two steps, on the CPU; bits as integers."""
    found = []
    for step in (3, 4):
        truth.begin(step)
        truth.compute(range(5))
        found += [truth.table, truth.losses]
        found.append(truth.poisoned_rows([1, 3], lambda labels, file: (labels + file) % 10))
        found.append(truth.rows_at(1, flat.params * 0.5, [0, 2]))
        found = [part.cpu().clone() for part in found]
        flat.params.mul_(0.9)
        flat.statistics.add_(0.1)
    return [part.view(torch.int32) for part in found]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("norm", ["lenet", "batch", "group"])
def test_a_graph_has_the_bits_of_the_loop(precision, norm):
    network = lenet if norm == "lenet" else partial(resnet18, norm=norm)
    loop = everything(*truth_on(network, precision, record=None))
    graph = everything(*truth_on(network, precision))
    for one, two in zip(loop, graph, strict=True):
        assert torch.equal(one, two)


class Waiting(nn.Module):
    """Waits for the GPU in every pass."""

    def forward(self, x):
        return x * 2 if x.mean().item() > 0 else x


class Breaking(nn.Module):
    """Waits for the GPU only while it is captured, so that the capture itself fails."""

    def forward(self, x):
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        return x * 2


def network_with(layer, shape, num_classes):
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(16 * 16, num_classes))


@pytest.mark.parametrize("layer", [Waiting, Breaking])
def test_what_cannot_be_recorded_is_computed_in_the_loop(layer, capsys):
    network = partial(network_with, layer())
    loop = everything(*truth_on(network, record=None))
    capsys.readouterr()
    assert all(map(torch.equal, loop, everything(*truth_on(network))))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the network's operations cannot be recorded as a CUDA graph (")
    # Nothing is left of the attempt.
    assert torch.cuda.get_sync_debug_mode() == 0
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.rand(1, device="cuda")
    loop = everything(*truth_on(lenet, record=None))
    assert all(map(torch.equal, loop, everything(*truth_on(lenet))))
    assert capsys.readouterr().err == ""
