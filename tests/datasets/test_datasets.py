from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import made, write_npz

from byzshield_exp.datasets import (
    Batches,
    Pictures,
    digits,
    divided,
    nearest_batch_size,
    pixels,
    synthetic,
)
from byzshield_exp.datasets.pixels import Statistics, measured
from byzshield_exp.streams import Stream, generator


def pictures(count, seed=0, shape=(3, 8, 8)):
    images, labels = made(count, seed, shape=shape)
    return Pictures(torch.from_numpy(images), torch.from_numpy(labels))


def whole(data, part="test"):
    return tuple(torch.cat(tensors) for tensors in zip(*data.chunks(part), strict=True))


def everything_trained_on(data):
    return data.train_batch(torch.arange(data.num_train), np.random.default_rng(0))


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data, original = digits(), load_digits()
    assert (data.num_train, len(data.test_labels)) == (1437, 360)
    ours = torch.cat([whole(data)[0], everything_trained_on(data)[0]]).flatten(1)
    labels = torch.cat([data.test_labels, data.train_labels])
    theirs = torch.from_numpy(original.data).float()
    raw = ours * (theirs.std() / 1.0)  # any positive scale: compare the pictures up to it
    low, high = raw.min(), raw.max()
    pixels = ((raw - low) / (high - low) * 16).round()
    assert Counter(map(tuple, pixels.tolist())) == Counter(map(tuple, theirs.tolist()))
    by_picture = dict(zip(map(tuple, theirs.tolist()), original.target.tolist(), strict=True))
    assert [by_picture[tuple(p)] for p in pixels.tolist()] == labels.tolist()
    standardised = everything_trained_on(data)[0]
    assert float(standardised.mean()) == pytest.approx(0, abs=1e-4)
    assert float(standardised.std()) == pytest.approx(1, abs=1e-4)


def test_synthetic_is_a_function_of_its_seed():
    first, again, other = synthetic(), synthetic(), synthetic(data_seed=1)
    assert torch.equal(first.train_images, again.train_images)
    assert not torch.equal(first.train_images, other.train_images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 0}, r"dataset\.num_train=0 must be at least 1"),
        ({"num_classes": 1}, "there must be at least 2 classes, got 1"),
        ({"noise": -1.0}, r"dataset\.noise=-1.0 must be finite and at least 0"),
        ({"noise": float("nan")}, r"dataset\.noise=nan must be finite and at least 0"),
        ({"noise": float("inf")}, r"dataset\.noise=inf must be finite and at least 0"),
        ({"data_seed": -1}, r"dataset\.data_seed=-1 must be at least 0"),
        ({"size": 10**6}, r"size=1000000 take 20080000 GB, this machine has \d+$"),
        ({"size": 10**200}, r"size=1\d+ take \d+ GB, this machine has \d+$"),
    ],
)
def test_synthetic_pictures_that_cannot_be_made_are_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        synthetic(**options)
    assert len(str(error.value).splitlines()) == 1


def test_synthetic_pictures_reach_the_network_as_they_are():
    data = synthetic()
    assert torch.equal(everything_trained_on(data)[0], data.train_images)
    assert torch.equal(whole(data)[0], data.test_images)


def test_bytes_are_kept_and_standardised_in_parts_to_the_same_bits():
    train, test = pictures(40), pictures(450, seed=1)
    mean, std = (0.5, 0.25, 0.1307), (0.3, 0.2, 0.3081)
    data = divided(train, test, 10, Statistics(mean, std))
    assert data.train_images.dtype == torch.uint8
    samples = torch.tensor([3, 39, 0])
    images, labels = data.train_batch(samples, np.random.default_rng(0))
    assert torch.equal(labels, train.labels[samples])
    for channel in range(3):  # as a whole set at once, with Python's numbers
        ready = (train.images[:, channel].float() / 255 - mean[channel]) / std[channel]
        assert torch.equal(images[:, channel], ready[samples])
        ready = (test.images[:, channel].float() / 255 - mean[channel]) / std[channel]
        assert torch.equal(whole(data)[0][:, channel], ready)
    assert torch.equal(whole(data)[1], test.labels)


def test_pictures_are_evaluated_in_small_groups():
    data = divided(pictures(5), pictures(450), 10)
    assert [len(images) for images, _ in data.chunks("test")] == [200, 200, 50]


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_statistics_are_those_of_each_channel(kind):
    images = torch.from_numpy(made(50, 0, shape=(3, 4, 5)).images)
    images[:, 1] //= 3
    images[:, 2] = 7
    if kind == "floats":
        images = images.float() * 10 - 3
    values = images.double().numpy() if kind == "floats" else images.numpy() / 255
    found = measured(images)
    assert found.mean == pytest.approx([values[:, c].mean() for c in range(3)], rel=1e-12)
    expected = [values[:, 0].std(ddof=1), values[:, 1].std(ddof=1), 1.0]
    assert found.std == pytest.approx(expected, rel=1e-12)


def test_a_channel_of_one_value_is_not_scaled():
    """Whatever the value: its mean is rounded, and what is left of it is no deviation."""
    values = torch.arange(256, dtype=torch.uint8)
    images = values.view(1, 256, 1, 1).expand(7, 256, 2, 3)
    found = measured(images)
    assert found.std == (1.0,) * 256
    assert found.mean == pytest.approx((values / 255).tolist(), abs=1e-6)
    for floats in (images / 255, images.double() / 255):
        assert measured(floats).std == (1.0,) * 256


def test_statistics_of_many_floats_are_measured_in_parts(monkeypatch):
    images = torch.randn(50, 2, 3, 4, generator=torch.Generator().manual_seed(0)) + 5
    whole_ones = measured(images)
    for chunk in (1, 30, 100):
        monkeypatch.setattr(pixels, "_CHUNK", chunk)
        found = measured(images)
        assert found.mean == pytest.approx(whole_ones.mean, rel=1e-12)
        assert found.std == pytest.approx(whole_ones.std, rel=1e-12)


def test_statistics_are_measured_on_what_is_trained_on():
    train = pictures(60)
    data = divided(train, pictures(6, seed=1), 10, num_validation=20)
    assert data.mean.tolist() == torch.tensor(measured(data.train_images).mean).tolist()
    assert data.mean.tolist() != torch.tensor(measured(train.images).mean).tolist()


@given(st.integers(2, 200), st.data())
@settings(max_examples=50, deadline=None)
def test_validation_pictures_are_held_out(count, drawn):
    held = drawn.draw(st.integers(1, count - 1))
    numbers = torch.arange(count)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1)
    data = divided(Pictures(images, numbers), Pictures(images, numbers), count, num_validation=held)
    assert data.eval_split == "validation"
    assert len(data.validation_labels) == held
    both = torch.cat([data.train_labels, data.validation_labels])
    assert torch.equal(both.sort().values, numbers)
    for part in ("train", "validation"):
        assert torch.equal(
            getattr(data, f"{part}_images").flatten(),
            images.flatten()[getattr(data, f"{part}_labels")],
        )
    assert torch.equal(whole(data, "validation")[1], data.validation_labels)
    assert torch.equal(whole(data)[1], numbers)


def test_the_validation_split_is_the_same_for_ever():
    held = synthetic(num_train=12, num_validation=4, num_test=1).validation_images
    first = synthetic(num_train=12, num_test=1).train_images
    rows = [next(i for i in range(12) if torch.equal(first[i], image)) for image in held]
    assert rows == [9, 2, 7, 4]
    other = synthetic(num_train=12, num_validation=4, num_test=1, data_seed=5, num_classes=3)
    first = synthetic(num_train=12, num_test=1, data_seed=5, num_classes=3).train_images
    assert torch.equal(other.validation_images, first[rows])


def test_without_validation_pictures_there_are_none():
    data = synthetic()
    assert data.eval_split == "test"
    with pytest.raises(ValueError, match="no pictures are held out"):
        next(data.chunks("validation"))


@pytest.mark.parametrize("count", [-1, 20, 21])
def test_as_many_validation_pictures_as_there_are_not_are_refused(count):
    with pytest.raises(
        ValueError, match=rf"dataset\.num_validation={count} must lie between 0 and 19"
    ):
        synthetic(num_train=20, num_validation=count)


def test_too_few_or_too_small_pictures_are_refused():
    with pytest.raises(ValueError, match="0 training and 2 test pictures"):
        divided(pictures(0), pictures(2), 10)
    with pytest.raises(ValueError, match="2 training and 0 test pictures"):
        divided(pictures(2), pictures(0), 10)
    small = pictures(2, shape=(1, 4, 9))
    with pytest.raises(ValueError, match=r"dataset\.augment=crop needs .* 4 x 4 pixels, got 4 x 9"):
        divided(small, small, 10, augment="crop")


def test_training_and_test_pictures_are_of_one_kind():
    train, test = pictures(3), pictures(2, shape=(3, 8, 9))
    with pytest.raises(ValueError, match=r"are \[3, 8, 8\] uint8, test pictures \[3, 8, 9\] uint8"):
        divided(train, test, 10)
    with pytest.raises(ValueError, match=r"are \[3, 8, 8\] uint8, .* \[3, 8, 8\] float32"):
        divided(train, train._replace(images=train.images.float()), 10)


@pytest.mark.parametrize(
    ("files", "size"), [(25, 300), (49, 294), (15, 300), (5, 300), (7, 301), (8, 304), (900, 900)]
)
def test_the_nearest_batch_size(files, size):
    assert nearest_batch_size(files) == size


@given(st.integers(5, 50), st.integers(1, 6), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_sample_is_used_equally_often(num_samples, files, file_size, seed):
    batches = Batches(num_samples, files * file_size, files, seed)
    steps = 3 * num_samples  # a whole number of epochs
    used = torch.cat([batches.file(t, i) for t in range(steps) for i in range(files)])
    counts = torch.bincount(used, minlength=num_samples)
    assert int(counts.min()) == int(counts.max()) == 3 * files * file_size


def test_a_file_is_a_function_of_seed_step_and_number():
    one, two = Batches(100, 30, 3, seed=0), Batches(100, 30, 3, seed=0)
    assert [one.file(9, 2).tolist(), one.file(0, 0).tolist()] == [
        two.file(9, 2).tolist(), two.file(0, 0).tolist(),
    ]  # fmt: skip
    assert one.file(0, 0).tolist() != Batches(100, 30, 3, seed=1).file(0, 0).tolist()


def test_random_numbers_of_a_file_are_a_stream_of_their_own():
    batches = Batches(100, 30, 3, seed=7)
    drawn = batches.random(9, 2).integers(2**62)
    assert drawn == generator(7, Stream.AUGMENT, 9, 2).integers(2**62)
    others = [(7, stream, 9, 2) for stream in Stream if stream != Stream.AUGMENT]
    others += [(8, Stream.AUGMENT, 9, 2), (7, Stream.AUGMENT, 9, 1), (7, Stream.AUGMENT, 8, 2)]
    assert drawn not in [generator(*place).integers(2**62) for place in others]


def test_the_streams_keep_their_numbers():
    """Another number would change the results of every run."""
    assert {stream.name: int(stream) for stream in Stream} == {
        "DATA": 0, "ADVERSARY": 1, "ATTACK": 2, "AGGREGATE": 3, "NETWORK": 4, "AUGMENT": 5,
        "DROPOUT": 6, "ATTACK_ONCE": 7, "LOTTERY": 8, "COIN": 9, "CHEAT": 10,
    }  # fmt: skip


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="99 does not split into 25"):
        Batches(100, 99, 25, seed=0)


def test_the_digest_is_of_all_pictures_and_labels():
    one, other = synthetic(num_train=20, num_test=5), synthetic(num_train=20, num_test=5)
    assert one.digest == other.digest
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        changed = getattr(one, name).clone()
        changed[-1] += 1
        assert replace(one, **{name: changed}).digest != one.digest


def test_a_run_does_not_go_on_with_other_data(cli, tmp_path):
    def go(steps):
        options = ("dataset=npz", f"dataset.root={tmp_path}", "dataset.file=mine.npz")
        return cli(
            *options, "network=mlp", "batch_size=25", f"steps={steps}", f"output_dir={tmp_path}/out"
        )

    write_npz(tmp_path / "mine.npz")
    assert go(2)[0] == 0
    arrays = write_npz(tmp_path / "mine.npz", train_labels=np.arange(25)[::-1] % 10)
    code, out, err = go(4)
    assert code == 0, err
    assert "new: " in out  # these data are another run
    write_npz(tmp_path / "mine.npz", train_labels=arrays["train_labels"][::-1])
    code, out, err = go(4)
    assert code == 0, err
    assert "resumes after step 2" in out
