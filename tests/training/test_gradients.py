from functools import partial

import torch
from torch.nn.functional import cross_entropy

from byzshield_exp.datasets import Batches, synthetic
from byzshield_exp.networks import entries_of, flatten, lenet, mlp
from byzshield_exp.training.gradients import TrueGradients


def make(num_threads=1, network=lenet, **more):
    torch.manual_seed(0)
    data = synthetic(num_train=100, num_test=1)
    network = network(data.shape, 10)
    flatten(network)
    truth = TrueGradients(network, data, Batches(100, 50, 5, seed=0), 5, num_threads, **more)
    return truth, network, data


def test_a_row_is_the_gradient_of_the_files_mean_loss():
    truth, network, data = make()
    truth.begin(3)
    samples = Batches(100, 50, 5, seed=0).file(3, 2)
    loss = cross_entropy(network(data.train_images[samples]), data.train_labels[samples])
    expected = torch.cat(
        [entries_of(g) for g in torch.autograd.grad(loss, list(network.parameters()))]
    )
    assert torch.equal(truth.message(2).row, expected)
    assert truth.losses[2] == loss
    assert torch.isnan(truth.losses[0])


def test_each_file_is_computed_once_a_step_and_only_when_read():
    truth, _, _ = make()
    truth.begin(0)
    truth.rows([1, 3])
    truth.message(3)
    assert truth.num_computed == 2
    truth.rows()
    assert truth.num_computed == 5
    truth.begin(1)
    truth.message(0)
    assert truth.num_computed == 6


def test_bits_do_not_depend_on_threads_or_order():
    one, _, _ = make(num_threads=1)
    many, _, _ = make(num_threads=4)
    for step in range(3):
        one.begin(step)
        many.begin(step)
        for file in (4, 0, 2, 1, 3):
            one.message(file)
        assert torch.equal(one.rows().view(torch.int32), many.rows().view(torch.int32))


def test_bits_do_not_depend_on_whether_a_thread_is_new():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for network in (partial(mlp, hidden=[16]), lenet):
            expected = make(network=network)[0].rows()
            for _ in range(30):
                assert torch.equal(make(num_threads=2, network=network)[0].rows(), expected)
    finally:
        torch.set_num_threads(before)


def test_products_in_bfloat16_are_near_and_repeat():
    exact, rough, again = (
        make(threads, precision=precision)[0].rows()
        for threads, precision in ((1, "float32"), (1, "bf16"), (2, "bf16"))
    )
    assert rough.dtype == torch.float32
    assert torch.equal(rough, again)
    assert 1e-4 < (rough - exact).norm() / exact.norm() < 0.1
