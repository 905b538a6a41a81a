"""The estimate of what a file's gradient takes, against what torch allocates."""

from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from byzshield_exp.networks import entries_of, flatten, lenet, mlp, resnet18, vgg11, vit
from byzshield_exp.training.activations import counted

NETWORKS = {
    "mlp": (mlp, (1, 28, 28)),
    "lenet": (lenet, (1, 28, 28)),
    "resnet18, batch": (partial(resnet18, width=16), (3, 32, 32)),
    "resnet18, group": (partial(resnet18, width=16, norm="group"), (3, 32, 32)),
    "vgg11": (vgg11, (3, 32, 32)),
    "vit": (vit, (3, 32, 32)),
}


def peak_of(work):
    """The most bytes that are allocated at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_takes_at_most_what_two_samples_say_and_not_much_less(name):
    network, shape = NETWORKS[name]
    made = network(shape, 10)
    flat, parameters = flatten(made), list(made.parameters())
    with counted(flat.state, samples=2) as activations:
        made(torch.zeros(2, *shape))
    pictures, classes = torch.randn(12, *shape), torch.zeros(12, dtype=torch.int64)

    def work():
        gradients = torch.autograd.grad(cross_entropy(made(pictures), classes), parameters)
        torch.cat([entries_of(gradient) for gradient in gradients])

    work()
    estimate = activations.of_file(12) + 2 * 4 * len(flat.params)
    assert 1 <= estimate / peak_of(work) < 2
