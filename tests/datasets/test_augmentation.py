"""Augmentation: against a slow reading, and as a function of (seed, step, file) alone."""

from collections import Counter

import numpy as np
import pytest
import torch
from picture_files import accept, made, write_cifar10, write_npz
from running import run_program, summary_of

from byzshield_exp.datasets import Batches, Pictures, cifar10, divided
from byzshield_exp.datasets.pixels import augmented
from byzshield_exp.networks import flatten, mlp
from byzshield_exp.streams import Stream, generator
from byzshield_exp.training.gradients import TrueGradients


def slowly(image, row, column, flip):
    """Pad, crop and mirror one picture ``[c, h, w]``."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="reflect")
    cropped = padded[:, row : row + height, column : column + width]
    return cropped[:, :, ::-1] if flip else cropped


@pytest.mark.parametrize("augment", ["crop", "crop_flip"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (2, 5, 9)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_it_is_padding_cropping_and_mirroring(augment, shape, dtype):
    images = torch.from_numpy(made(50, 0, shape=shape).images).to(dtype)
    found = augmented(images, augment, np.random.default_rng(5))
    random = np.random.default_rng(5)
    rows, columns = random.integers(9, size=(2, 50))
    flips = random.integers(2, size=50) == 1 if augment == "crop_flip" else np.zeros(50, bool)
    assert found.dtype == dtype
    assert flips.any() == (augment == "crop_flip")
    for image, one, row, column, flip in zip(
        images.numpy(), found.numpy(), rows, columns, flips, strict=True
    ):
        assert np.array_equal(one, slowly(image, row, column, flip))


def test_none_changes_nothing():
    images = torch.from_numpy(made(3, 0).images)
    assert augmented(images, "none", np.random.default_rng(0)) is images


def test_all_81_places_and_both_sides_occur_equally_often():
    """On a picture whose pixels are all different, its own pixels tell the place and the side."""
    count, shape = 16_200, (1, 11, 11)
    picture = torch.arange(121, dtype=torch.uint8).view(1, *shape)
    found = augmented(picture.expand(count, *shape), "crop_flip", np.random.default_rng(0))
    known = {
        slowly(picture[0].numpy(), row, column, flip).tobytes(): (row, column, flip)
        for row in range(9)
        for column in range(9)
        for flip in (False, True)
    }
    assert len(known) == 162
    seen = Counter(known[one.tobytes()] for one in found.numpy())
    assert len(seen) == 162
    expected = count / 162
    chi_squared = sum((seen[one] - expected) ** 2 / expected for one in known.values())
    assert 161 - 4 * 322**0.5 < chi_squared < 161 + 4 * 322**0.5  # mean and sd of its law
    assert sum(n for (_, _, flip), n in seen.items() if flip) == pytest.approx(count / 2, rel=0.05)


def truth_of(data, seed=0, files=5, threads=1):
    torch.manual_seed(0)
    network = mlp(data.shape, data.num_classes, hidden=[4])
    flatten(network)
    return TrueGradients(network, data, Batches(data.num_train, 20, files, seed), files, threads)


def coloured(augment="crop_flip", **options):
    images, labels = made(40, 0, shape=(3, 8, 8))
    pictures = Pictures(torch.from_numpy(images), torch.from_numpy(labels))
    return divided(pictures, pictures, 10, augment=augment, **options)


def test_a_file_has_the_pixels_of_its_seed_step_and_number():
    data, plain = coloured(), coloured("none")
    truth, again, other = truth_of(data), truth_of(data), truth_of(data, seed=1)
    images, labels = truth._samples(7, 3)
    samples = Batches(40, 20, 5, seed=0).file(7, 3)
    raw = augmented(data.train_images[samples], "crop_flip", generator(0, Stream.AUGMENT, 7, 3))
    expected = (raw.float() / 255 - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
    assert torch.equal(images, expected)
    assert torch.equal(labels, data.train_labels[samples])
    assert not torch.equal(images, truth_of(plain)._samples(7, 3)[0])
    again.begin(7)  # after others, in another order, more than once
    for file in (4, 0, 3, 3):
        again.load([file])
    assert torch.equal(again._loaded[3][0], images)
    assert not torch.equal(other._samples(7, 3)[0], images)
    both = data.train_batch(samples, generator(0, Stream.AUGMENT, 7, 2))[0]
    assert not torch.equal(both, images)  # the same pictures, another file
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    truth._samples(7, 3)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]


def test_rows_do_not_depend_on_threads_and_poisoned_ones_see_the_same_pixels():
    one, many = truth_of(coloured()), truth_of(coloured(), threads=3)
    for step in range(3):
        one.begin(step)
        many.begin(step)
        assert torch.equal(one.rows(), many.rows())
        poisoned = one.poisoned_rows([1, 2], lambda labels, file: labels)
        assert torch.equal(poisoned, one.rows([1, 2]))
        flipped = one.poisoned_rows([1], lambda labels, file: 9 - labels)
        assert not torch.equal(flipped[0], one.rows([1])[0])


def test_what_is_evaluated_is_never_augmented():
    data = coloured(num_validation=10)
    for part in ("test", "validation"):
        (images, _), = data.chunks(part)  # fmt: skip
        stored = getattr(data, f"{part}_images")
        plain = (stored.float() / 255 - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
        assert torch.equal(images, plain)


def test_without_augmentation_cifar_is_only_standardised(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    accept(monkeypatch, tmp_path)
    data = cifar10(root=str(tmp_path), augment="none")
    images, _ = data.train_batch(torch.arange(25), np.random.default_rng(0))
    mean, std = (
        torch.tensor(x).view(-1, 1, 1) / 255 for x in ((125.3, 123, 113.9), (63, 62.1, 66.7))
    )
    torch.testing.assert_close(images, (data.train_images.float() / 255 - mean) / std)


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "svhn"])
def test_digits_and_clothes_are_never_mirrored(cli, tmp_path, dataset):
    code, _, err = cli(f"dataset={dataset}", "dataset.augment=crop_flip", f"output_dir={tmp_path}")
    assert code == 2
    assert "dataset.augment='crop_flip' must be one of none, crop" in err


OPTIONS = (
    "dataset=npz", "dataset.file=mine.npz", "dataset.augment=crop_flip", "network=mlp",
    "network.hidden=[16]", "steps=4", "eval_every=4", "batch_size=25", "attack=label_flip",
)  # fmt: skip


@pytest.mark.slow
def test_an_augmented_run_learns_from_other_pixels_with_the_same_files(run, tmp_path):
    write_npz(tmp_path / "mine.npz")
    where = f"dataset.root={tmp_path}"
    first = run(*OPTIONS, where, small=False, folder=tmp_path / "a")
    again = run(*OPTIONS, where, small=False, folder=tmp_path / "b")
    plain = run(*OPTIONS, where, "dataset.augment=none", small=False, folder=tmp_path / "c")
    assert first["parameters_sha256"] == again["parameters_sha256"]
    assert first["parameters_sha256"] != plain["parameters_sha256"]


@pytest.mark.thorough
def test_processes_and_one_process_end_with_the_same_bits(tmp_path):
    train, test = made(250, 0), made(50, 1)
    write_npz(
        tmp_path / "mine.npz", train_images=train.images, train_labels=train.labels,
        test_images=test.images, test_labels=test.labels,
    )  # fmt: skip
    options = (
        "dataset=npz", "dataset.file=mine.npz", f"dataset.root={tmp_path}",
        "dataset.augment=crop_flip", "dataset.num_validation=20", "network=lenet", "steps=5",
        "eval_every=5", "batch_size=75", "attack=label_flip",
    )  # fmt: skip
    found = {}
    for name, more in {
        "local": (),
        "four": ("cluster=processes", "cluster.num_processes=4"),
        "gathered": ("cluster=processes", "cluster.num_processes=3", "vote=majority"),
        "plain": ("dataset.augment=none",),
    }.items():
        done = run_program(*options, *more, f"output_dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        found[name] = summary_of(tmp_path / name)
    hashes = {name: summary["parameters_sha256"] for name, summary in found.items()}
    assert hashes["four"] == hashes["gathered"] == hashes["local"] != hashes["plain"]
    accuracies = {found[name]["final_validation_accuracy"] for name in ("local", "four")}
    assert len(accuracies) == 1
