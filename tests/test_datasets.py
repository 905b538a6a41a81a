import gzip
import http.server
import os
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp.datasets import Batches, digits, mnist, nearest_batch_size, synthetic

NAMES = {
    "train-images-idx3-ubyte": (12, 28, 28),
    "train-labels-idx1-ubyte": (12,),
    "t10k-images-idx3-ubyte": (5, 28, 28),
    "t10k-labels-idx1-ubyte": (5,),
}


def idx(shape, seed):
    random = np.random.default_rng(seed)
    content = random.integers(0, 10 if len(shape) == 1 else 256, shape, dtype=np.uint8)
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">i4").tobytes()
    return header + content.tobytes(), content


def write_mnist(folder: Path, packed: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    arrays = {}
    for seed, (name, shape) in enumerate(NAMES.items()):
        content, arrays[name] = idx(shape, seed)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return arrays


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_reads_the_original_files(tmp_path, packed):
    arrays = write_mnist(tmp_path / "MNIST" / "raw", packed)
    data = mnist(root=str(tmp_path))
    assert data.shape == (1, 28, 28)
    assert data.num_train == 12
    assert data.train_labels.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
    pixels = torch.from_numpy(arrays["t10k-images-idx3-ubyte"] / 255.0)
    torch.testing.assert_close(
        data.test_images[:, 0].double(), (pixels - 0.1307) / 0.3081, atol=1e-5, rtol=0
    )


def test_mnist_says_what_is_missing(tmp_path):
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte.*dataset.download=true, or copy"
    ):
        mnist(root=str(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "type", "gzip"])
def test_a_damaged_mnist_file_is_named(tmp_path, damage):
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder, packed=True)
    path = folder / "train-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(
        {
            "cut": gzip.compress(content[:-3]),
            "type": gzip.compress(b"\x00\x00\x0d" + content[3:]),
            "gzip": path.read_bytes()[:-9],
        }[damage]
    )
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte"):
        mnist(root=str(tmp_path))


@pytest.mark.parametrize("damage", ["swap", "labels", "class"])
def test_mnist_files_that_do_not_belong_together_are_refused(tmp_path, damage):
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder, packed=False)
    images, labels, other = (
        folder / f"{name}-ubyte"
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-labels-idx1")
    )
    if damage == "swap":
        images.write_bytes(labels.read_bytes())
    if damage == "labels":
        labels.write_bytes(other.read_bytes())
    if damage == "class":
        labels.write_bytes(labels.read_bytes()[:-1] + bytes([10]))
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte"):
        mnist(root=str(tmp_path))


def test_mnist_downloads_with_torchvision(tmp_path, monkeypatch):
    """The real download code, from a server on this machine."""
    import hashlib

    from torchvision.datasets import MNIST

    write_mnist(tmp_path / "served", packed=True)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    handler.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sums = [
        (f"{name}.gz", hashlib.md5((tmp_path / "served" / f"{name}.gz").read_bytes()).hexdigest())
        for name in NAMES
    ]
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(MNIST, "resources", sums)
    try:
        assert mnist(root=str(tmp_path / "data"), download=True).num_train == 12
    finally:
        server.shutdown()
        server.server_close()


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(ValueError, match="download of MNIST failed"):
        mnist(root=str(tmp_path), download=True)


@pytest.mark.skipif("BYZSHIELD_DATA" not in os.environ, reason="BYZSHIELD_DATA is not set")
def test_real_mnist():
    data = mnist(root=os.environ["BYZSHIELD_DATA"])
    assert data.train_images.shape[1:] == (1, 28, 28)
    assert set(data.test_labels.tolist()) == set(range(10))
    assert float(data.train_images.mean()) == pytest.approx(0, abs=0.05)
    assert float(data.train_images.std()) == pytest.approx(1, abs=0.05)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data, original = digits(), load_digits()
    assert (data.num_train, len(data.test_labels)) == (1437, 360)
    ours = torch.cat([data.test_images, data.train_images]).flatten(1)
    labels = torch.cat([data.test_labels, data.train_labels])
    theirs = torch.from_numpy(original.data).float()
    raw = ours * (theirs.std() / 1.0)  # any positive scale: compare the pictures up to it
    low, high = raw.min(), raw.max()
    pixels = ((raw - low) / (high - low) * 16).round()
    assert Counter(map(tuple, pixels.tolist())) == Counter(map(tuple, theirs.tolist()))
    by_picture = dict(zip(map(tuple, theirs.tolist()), original.target.tolist(), strict=True))
    assert [by_picture[tuple(p)] for p in pixels.tolist()] == labels.tolist()
    assert float(data.train_images.mean()) == pytest.approx(0, abs=1e-4)


def test_synthetic_is_a_function_of_its_seed():
    first, again, other = synthetic(), synthetic(), synthetic(data_seed=1)
    assert torch.equal(first.train_images, again.train_images)
    assert not torch.equal(first.train_images, other.train_images)
    with pytest.raises(ValueError, match="num_train=0"):
        synthetic(num_train=0)


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


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="99 does not split into 25"):
        Batches(100, 99, 25, seed=0)
