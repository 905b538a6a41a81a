"""Official data sets: the same pixels, labels and digests as ever, and which file is damaged."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from picture_files import accept, write_cifar10, write_cifar100, write_mnist, write_svhn

from byzshield_exp.datasets import (
    cifar10,
    cifar100,
    fashion_mnist,
    is_missing,
    mnist,
    stand_in,
    svhn,
)
from byzshield_exp.datasets.official import stored_files

WRITE = {
    mnist: lambda root: write_mnist(root / "MNIST" / "raw"),
    fashion_mnist: lambda root: write_mnist(root / "FashionMNIST" / "raw"),
    cifar10: write_cifar10,
    cifar100: write_cifar100,
    svhn: write_svhn,
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """``written(read)``: write the files of a data set; what is in them."""

    def write(read):
        content = WRITE[read](tmp_path)
        accept(monkeypatch, tmp_path)
        return content

    return write


def assert_is(data, train, test):
    """Every pixel at its place: picture, channel, row and column."""
    for part, expected in (("train", train), ("test", test)):
        images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
        assert images.dtype == torch.uint8
        assert images.is_contiguous()
        assert labels.dtype == torch.int64
        assert np.array_equal(images.numpy(), expected.images)
        assert labels.tolist() == expected.labels.tolist()


@pytest.mark.parametrize(
    ("read", "folder", "mean", "std"),
    [(mnist, "MNIST", 0.1307, 0.3081), (fashion_mnist, "FashionMNIST", 0.2860, 0.3530)],
)
def test_idx_files(tmp_path, read, folder, mean, std):
    arrays = write_mnist(tmp_path / folder / "raw")
    data = read(root=str(tmp_path))
    assert (data.shape, data.num_train, data.num_classes) == ((1, 28, 28), 12, 10)
    for part, name in (("train", "train"), ("test", "t10k")):
        images, labels = (arrays[f"{name}-{what}-ubyte"] for what in ("images-idx3", "labels-idx1"))
        assert np.array_equal(getattr(data, f"{part}_images")[:, 0].numpy(), images)
        assert getattr(data, f"{part}_labels").tolist() == labels.tolist()
    pixels = torch.from_numpy(arrays["t10k-images-idx3-ubyte"] / 255.0)
    (images, _), = data.chunks("test")  # fmt: skip
    torch.testing.assert_close(images[:, 0].double(), (pixels - mean) / std, atol=1e-5, rtol=0)


def test_cifar10(tmp_path, written):
    train, test = written(cifar10)
    data = cifar10(root=str(tmp_path))
    assert_is(data, train, test)
    assert (data.num_classes, data.augment) == (10, "crop_flip")
    (images, _), = data.chunks("test")  # fmt: skip
    expected = (test.images[2, 1, 30, 3] - 123.0) / 62.1
    assert float(images[2, 1, 30, 3]) == pytest.approx(expected, abs=1e-5)


def test_cifar100_has_the_fine_labels(tmp_path, written):
    train, test = written(cifar100)
    data = cifar100(root=str(tmp_path), augment="none")
    assert_is(data, train, test)
    assert (data.num_classes, data.augment) == (100, "none")
    (images, _), = data.chunks("test")  # fmt: skip
    expected = (test.images[2, 2, 30, 3] - 112.4) / 70.4
    assert float(images[2, 2, 30, 3]) == pytest.approx(expected, abs=1e-5)


def test_svhn(tmp_path, written):
    parts = written(svhn)
    assert 0 in parts["train"].labels
    data = svhn(root=str(tmp_path))
    assert_is(data, parts["train"], parts["test"])
    assert (data.num_classes, data.augment) == (10, "none")
    assert data.mean.tolist() == pytest.approx([0.4377, 0.4438, 0.4728])
    more = svhn(root=str(tmp_path), extra=True)
    both = zip(parts["train"], parts["extra"], strict=True)
    images, labels = (np.concatenate(pair) for pair in both)
    assert_is(more, parts["train"]._replace(images=images, labels=labels), parts["test"])
    assert more.mean.tolist() == pytest.approx([0.4310, 0.4302, 0.4463], abs=1e-4)
    # torchvision's users have the files in the root itself
    assert svhn(root=str(tmp_path / "SVHN")).digest == data.digest


# What the readers of the first edition, which were our own, made of the same pictures.
DIGESTS = {
    (mnist, 0): "ddd045ee2bebd8a662a875fbf59e14197db8758c85ab9cf865489ff88ebec9e6",
    (mnist, 3): "34ffe39fcd04ae0d25c0a804616a17b7b442845f3a0d61b5dff71bba42257a2b",
    (fashion_mnist, 0): "87d9c5b2bb6d208101ffdb1e4350e002009bbbcc43f1e89ca20909379bdb31ff",
    (cifar10, 0): "a3430ecc1f3b6e859826cc4f7c33f9a7c7d875830ba005b909f0852a04ae086b",
    (cifar10, 3): "327d92cdbf77d18593e733a7acef239ac281fc1d03d07a68d29eece9e5e318fe",
    (cifar100, 0): "22d88776ed3b6d4c6caa4008f930b6860a42b16e8feecc9c24efddd852616761",
    (svhn, 0): "a5fb1654fdef465039d7b06f1fa1447941758b30a23b851a431a97e7e8321858",
}


@pytest.mark.parametrize(
    ("read", "held"), DIGESTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_the_digest_of_the_same_pictures_is_the_same_for_ever(tmp_path, written, read, held):
    """It is part of what a run is: with another one, no older run could be resumed."""
    written(read)
    assert read(root=str(tmp_path), num_validation=held).digest.hex() == DIGESTS[read, held]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", r"MNIST/raw is damaged \(.+\): delete it and do byzshield prepare dataset=mnist "),
        ("no bytes", r"MNIST/raw is damaged \("),
        ("type", r"MNIST/raw is damaged \("),
        ("swap", r"MNIST/raw is damaged \("),
        ("fewer", r"\(train: pictures \[12, 1, 28, 28\] and labels \[5\]\)"),
        ("class", r"\(train: the class 10, the bound is 9\)"),
    ],
)
def test_damaged_idx_files_are_one_line(tmp_path, damage, message):
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder)
    images, labels, other = (
        folder / f"{name}-ubyte"
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-labels-idx1")
    )
    content = labels.read_bytes()
    labels.write_bytes(
        {
            "cut": content[:-3],
            "no bytes": b"",
            "type": b"\x00\x00\x0d" + content[3:],
            "swap": images.read_bytes(),
            "fewer": other.read_bytes(),
            "class": content[:-1] + bytes([10]),
        }[damage]
    )
    with pytest.raises(ValueError, match=message) as error:
        mnist(root=str(tmp_path))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (cifar10, "cifar-10-batches-py/data_batch_3"),
        (cifar10, "cifar-10-batches-py/batches.meta"),
        (cifar100, "cifar-100-python/test"),
        (svhn, "SVHN/test_32x32.mat"),
    ],
)
def test_a_file_of_another_md5_is_named_and_never_unpickled(tmp_path, written, read, name):
    written(read)
    path = tmp_path / name
    path.write_bytes(b"cbuiltins\nexit\n(I3\ntR.")  # ends a process that unpickles it
    with pytest.raises(ValueError, match=rf"{name} is not the official file \(another MD5\): del"):
        read(root=str(tmp_path))
    path.unlink()
    with pytest.raises(ValueError, match=rf"has no {name}: fetch it once with byzshield prepare"):
        read(root=str(tmp_path))


def test_small_files_pass_only_where_a_test_lets_them(tmp_path):
    """The checksums are torchvision's own."""
    write_cifar10(tmp_path)
    with pytest.raises(ValueError, match=r"data_batch_1 is not the official file"):
        cifar10(root=str(tmp_path))


def test_memory_that_does_not_suffice_is_no_damage(tmp_path, written, monkeypatch):
    def load(path):
        raise MemoryError

    written(svhn)
    monkeypatch.setattr("scipy.io.loadmat", load)
    with pytest.raises(MemoryError):
        svhn(root=str(tmp_path))


@pytest.mark.parametrize("read", WRITE)
def test_what_is_missing_comes_with_the_command_that_fetches_it(read):
    with pytest.raises(ValueError, match=r"dataset\.root=no where has no \w") as error:
        read(root="no where")
    command = f"byzshield prepare dataset={read.__name__} dataset.root='no where'"
    assert str(error.value).endswith(command)


def test_svhns_extra_pictures_are_fetched_by_another_command(tmp_path, written):
    written(svhn)
    (tmp_path / "SVHN" / "extra_32x32.mat").unlink()
    with pytest.raises(ValueError, match=r"dataset=svhn dataset\.root=\S+ dataset\.extra=true$"):
        svhn(root=str(tmp_path), extra=True)


def test_a_home_folder_can_be_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_mnist(tmp_path / "data" / "MNIST" / "raw")
    assert mnist(root="~/data").num_train == 12
    with pytest.raises(ValueError, match=r"dataset\.root=~nobody-at-all/data has no MNIST/raw"):
        mnist(root="~nobody-at-all/data")


@pytest.mark.parametrize("read", WRITE)
def test_a_data_set_is_missing_until_its_last_file_is_there(tmp_path, read):
    assert is_missing(read.__name__, str(tmp_path))
    for path in stored_files(read.__name__, tmp_path):
        assert is_missing(read.__name__, str(tmp_path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert not is_missing(read.__name__, str(tmp_path))
    assert not is_missing("digits", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "sizes", "shape", "classes"),
    [
        ("mnist", (60_000, 10_000), (1, 28, 28), 10),
        ("fashion_mnist", (60_000, 10_000), (1, 28, 28), 10),
        ("cifar10", (50_000, 10_000), (3, 32, 32), 10),
        ("cifar100", (50_000, 10_000), (3, 32, 32), 100),
        ("svhn", (73_257, 26_032), (3, 32, 32), 10),
    ],
)
def test_a_stand_in_has_the_sizes_of_the_pictures(name, sizes, shape, classes):
    data = stand_in(name, num_validation=1000)
    assert (data.num_train + 1000, len(data.test_labels)) == sizes
    assert (data.shape, data.num_classes, data.eval_split) == (shape, classes, "validation")


def test_a_stand_in_has_svhns_extra_pictures():
    assert stand_in("svhn", extra=True).num_train == 73_257 + 531_131


@pytest.mark.slow
def test_other_data_sets_do_without_torchvision():
    """Its import takes two seconds in each of many processes."""
    code = (
        "import sys; from byzshield_exp.datasets import digits, is_missing\n"
        "digits(); is_missing('digits', 'data'); print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif("BYZSHIELD_DATA" not in os.environ, reason="BYZSHIELD_DATA is not set")
def test_real_mnist():
    data = mnist(root=os.environ["BYZSHIELD_DATA"])
    assert data.shape == (1, 28, 28)
    assert set(data.test_labels.tolist()) == set(range(10))
    images = torch.cat([images for images, _ in data.chunks("test")])
    assert float(images.mean()) == pytest.approx(0, abs=0.05)
    assert float(images.std()) == pytest.approx(1, abs=0.05)
