"""Attacks made of the liar's own file: noise and poisoned labels."""

import math

import numpy as np
import pytest
import torch
from test_attacks import Rows, knowledge
from test_attacks_all import LIARS, real_truth
from torch.nn.functional import cross_entropy

from byzshield_exp.assignments import mols
from byzshield_exp.attacks import (
    gaussian,
    gaussian_noise,
    label_flip,
    label_shuffle,
    random_direction,
    reversed_gradient,
    scalar_noise,
)
from byzshield_exp.binding import bind
from byzshield_exp.networks import entries_of
from byzshield_exp.streams import Stream, generator

SIZES = [30000, 50, 9000, 950]


@pytest.fixture
def seen():
    rows = torch.from_numpy(3 * np.random.default_rng(0).standard_normal((25, 40000)))
    return knowledge(Rows(rows, SIZES), mols(15, 3), LIARS, (3, 8), step=7)


def test_sign_flip_is_minus_the_gradient(seen):
    assert torch.equal(reversed_gradient(seen, scale=1.0), -seen.own_rows())


def test_gaussian_has_its_mean_and_deviation_and_reads_nothing(seen):
    forged = gaussian(seen, mean=5.0, std=0.1)
    assert float(forged.mean()) == pytest.approx(5, abs=0.002)
    assert float(forged.std()) == pytest.approx(0.1, rel=0.02)
    assert abs(float(torch.corrcoef(forged)[0, 1])) < 0.02
    assert not seen.truth.read
    expected = generator(0, Stream.ATTACK, 7, 8).standard_normal(40000, dtype="float32")
    np.testing.assert_allclose(forged[1].numpy(), 5 + 0.1 * expected, rtol=1e-6)


@pytest.mark.parametrize(("relative", "expected"), [(False, 0.5), (True, 1.5)])
def test_gaussian_noise_is_added_to_every_entry(seen, relative, expected):
    noise = gaussian_noise(seen, sigma=0.5, relative=relative) - seen.own_rows()
    assert seen.truth.read == {3, 8}
    assert float(noise.std()) == pytest.approx(expected, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert abs(float(torch.corrcoef(torch.stack([noise[0], seen.own_rows()[0]]))[0, 1])) < 0.02


def test_scalar_noise_shifts_every_second_tensor_by_one_number(seen):
    noise = scalar_noise(seen, sigma=100.0) - seen.own_rows()
    for row, file in zip(noise, seen.files, strict=True):
        draws = generator(0, Stream.ATTACK, 7, file).standard_normal(2)
        parts = row.split(SIZES)
        for part, shift in zip(parts, (draws[0], 0, draws[1], 0), strict=True):
            torch.testing.assert_close(part, torch.full_like(part, 100 * shift))


def test_random_direction_keeps_lengths_per_tensor_or_as_a_whole(seen):
    own = seen.own_rows()
    by_tensor = random_direction(seen, scale=7.0)
    seen.memory.clear()
    whole = random_direction(seen, scale=7.0, scope="global")
    for forged, sizes in ((by_tensor, SIZES), (whole, [40000])):
        for got, true in zip(forged.split(sizes, dim=1), own.split(sizes, dim=1), strict=True):
            torch.testing.assert_close(got.norm(dim=1), 7 * true.norm(dim=1), rtol=1e-6, atol=0)
            cosines = (got * true).sum(dim=1) / got.norm(dim=1) / true.norm(dim=1)
            assert cosines.abs().max() < 5 / math.sqrt(got.shape[1])
        unit = forged / forged.norm(dim=1, keepdim=True)
        assert float(unit[0] @ unit[1]) > 0.99  # one direction for all files
    other = knowledge(seen.truth, seen.assignment, (1,), (3,), step=0)
    torch.testing.assert_close(random_direction(other, scale=7.0), by_tensor[:1])


def by_autograd(truth, file, labels):
    images, _ = truth._samples(truth._step, file)
    loss = cross_entropy(truth._network(images), labels)
    gradients = torch.autograd.grad(loss, list(truth._network.parameters()))
    return torch.cat([entries_of(gradient) for gradient in gradients])


def test_label_flip_is_the_gradient_of_flipped_labels():
    truth, _ = real_truth()
    truth.begin(2)
    forged = label_flip(knowledge(truth, mols(15, 3), LIARS, (3, 8), step=2))
    for row, file in zip(forged, (3, 8), strict=True):
        assert torch.equal(row, by_autograd(truth, file, 9 - truth._samples(2, file)[1]))
    assert truth.num_computed == 0
    assert torch.isnan(truth.losses).all()
    assert not torch.equal(truth.message(3).row, forged[0])


def test_label_shuffle_is_the_gradient_of_permuted_labels():
    truth, _ = real_truth()
    truth.begin(2)
    forged = label_shuffle(knowledge(truth, mols(15, 3), LIARS, (3, 8), step=2))
    for row, file in zip(forged, (3, 8), strict=True):
        order = generator(0, Stream.ATTACK, 2, file).permutation(4)
        labels = truth._samples(2, file)[1][torch.from_numpy(order)]
        assert torch.equal(row, by_autograd(truth, file, labels))


def test_poison_sees_a_file_and_its_labels():
    truth, _ = real_truth()
    truth.begin(2)
    asked = {}

    def poison(labels, file):
        asked[file] = labels.clone()
        return labels

    rows = truth.poisoned_rows([4, 9], poison)
    assert torch.equal(rows, truth.rows([4, 9]))
    assert all(torch.equal(asked[file], truth._samples(2, file)[1]) for file in (4, 9))


def test_gradients_at_other_parameters_are_those_of_that_step():
    (truth, params), (other, there) = real_truth(), real_truth()
    there += 0.1
    truth.begin(5)
    other.begin(2)
    here = params.clone()
    assert torch.equal(truth.rows_at(2, there, [7, 1]), other.rows([7, 1]))
    assert torch.equal(params, here)
    assert truth.num_computed == 0
    with pytest.raises(RuntimeError):
        truth.rows_at(2, there[:-1], [7])
    assert torch.equal(params, here)


@pytest.mark.parametrize(
    ("target", "option", "message"),
    [
        ("alie", {"population": "some"}, "attack.population='some' must be one of all, honest, li"),
        ("min_max", {"direction": "up"}, "attack.direction='up' must be one of std, unit, sign"),
        ("random_direction", {"scope": "all"}, "attack.scope='all' must be one of tensor, global"),
        ("alie", {"ddof": 0.5}, "attack.ddof=0.5 must be int"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(target, option, message):
    from byzshield_exp.errors import ConfigError

    with pytest.raises(ConfigError, match=message):
        bind("attack", {"_target_": f"byzshield_exp.attacks.{target}", **option}, ("knowledge",))
