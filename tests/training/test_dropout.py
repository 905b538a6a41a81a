"""Dropout: its random numbers are a function of seed, step and file, wherever they are drawn."""

import torch
from own_network import SMALL, truth_of


def test_a_cpu_run_leaves_gpus_alone(network, run, monkeypatch, tmp_path):
    """Every process would have a context on them."""

    def touched(*_):
        raise AssertionError("the GPU's generator was read")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched)
    run(*SMALL, "+network.dropout=0.5", small=False, folder=tmp_path / "out")


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
