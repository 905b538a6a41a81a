"""Small files of the official formats, and what is in them."""

import gzip
import hashlib
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np

MNIST_FILES = {
    "train-images-idx3-ubyte": (12, 28, 28),
    "train-labels-idx1-ubyte": (12,),
    "t10k-images-idx3-ubyte": (5, 28, 28),
    "t10k-labels-idx1-ubyte": (5,),
}


class Made(NamedTuple):
    """``images [n, c, h, w]`` bytes and ``labels [n]``, as a reader should give them."""

    images: np.ndarray
    labels: np.ndarray


def made(count, seed, classes=10, shape=(3, 32, 32)):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Made(images, random.integers(0, classes, count))


def idx(shape, seed):
    random = np.random.default_rng(seed)
    content = random.integers(0, 10 if len(shape) == 1 else 256, shape, dtype=np.uint8)
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">i4").tobytes()
    return header + content.tobytes(), content


def write_mnist(folder: Path, packed: bool = False) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for seed, (name, shape) in enumerate(MNIST_FILES.items()):
        content, arrays[name] = idx(shape, seed)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return arrays


def pickled(content: dict) -> bytes:
    """As Python 2 and an old NumPy wrote it: their module's name, and 0 and 1 for its flags."""
    text = pickle.dumps(content, protocol=2)
    text = text.replace(b"cnumpy._core.", b"cnumpy.core.")
    return text.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")


def cifar_batch(pictures: Made, labels: str) -> bytes:
    """``data [n, 3072]``: red, green and blue, each row by row."""
    rows = [[value for row in image.reshape(96, 32) for value in row] for image in pictures.images]
    return pickled({"data": np.array(rows, np.uint8), labels: pictures.labels.tolist()})


def write_cifar10(root: Path, each: int = 5) -> tuple[Made, Made]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batches = [made(each, seed) for seed in range(6)]
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, batch in zip(names, batches, strict=True):
        (folder / name).write_bytes(cifar_batch(batch, "labels"))
    (folder / "batches.meta").write_bytes(pickled({"label_names": list("abcdefghij")}))
    images, labels = (np.concatenate(part) for part in zip(*batches[:5], strict=True))
    return Made(images, labels), batches[5]


def write_cifar100(root: Path) -> tuple[Made, Made]:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    train, test = made(25, 0, classes=100), made(6, 1, classes=100)
    (folder / "train").write_bytes(cifar_batch(train, "fine_labels"))
    (folder / "test").write_bytes(cifar_batch(test, "fine_labels"))
    (folder / "meta").write_bytes(pickled({"fine_label_names": [str(i) for i in range(100)]}))
    return train, test


def accept(monkeypatch, root: Path) -> None:
    """Let torchvision take the CIFAR and SVHN files below ``root`` for the official ones."""
    from torchvision.datasets import CIFAR10, CIFAR100, SVHN

    def md5(path: Path, official: str) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else official

    for source in (CIFAR10, CIFAR100):
        folder = root / source.base_folder
        for name in ("train_list", "test_list"):
            files = [[file, md5(folder / file, old)] for file, old in getattr(source, name)]
            monkeypatch.setattr(source, name, files)
        meta = source.meta
        known = meta | {"md5": md5(folder / meta["filename"], meta["md5"])}
        monkeypatch.setattr(source, "meta", known)
    places = [root / "SVHN", root]
    folder = next((one for one in places if (one / "train_32x32.mat").is_file()), places[0])
    splits = {
        split: [url, name, md5(folder / name, old)]
        for split, (url, name, old) in SVHN.split_list.items()
    }
    monkeypatch.setattr(SVHN, "split_list", splits)


def write_svhn(root: Path) -> dict[str, Made]:
    """``X [32, 32, 3, n]`` (row, column, colour, picture); the digit 0 is written as 10."""
    from scipy.io import savemat

    folder = root / "SVHN"
    folder.mkdir(parents=True)
    parts = {"train": made(25, 0), "test": made(6, 1), "extra": made(7, 2)}
    for name, (images, labels) in parts.items():
        pixels = np.empty((32, 32, 3, len(labels)), np.uint8)
        for number, image in enumerate(images):
            for colour in range(3):
                pixels[:, :, colour, number] = image[colour]
        digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": pixels, "y": digits}, do_compression=True)
    return parts


def write_folder(root: Path, side: int = 8, each: int = 5) -> dict[str, Made]:
    """PNG files, which lose nothing, of three classes."""
    from PIL import Image

    parts = {}
    for seed, part in enumerate(("train", "test")):
        images, labels = [], []
        for label, name in enumerate(("ant", "bee", "cow")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number, image in enumerate(
                made(each, 10 * seed + label, shape=(3, side, side)).images
            ):
                Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number}.png")
                images.append(image)
                labels.append(label)
        parts[part] = Made(np.stack(images), np.array(labels))
    return parts


def write_npz(path: Path, **changes) -> dict[str, np.ndarray]:
    train, test = made(25, 0, shape=(3, 8, 8)), made(6, 1, shape=(3, 8, 8))
    arrays = {
        "train_images": train.images, "train_labels": np.arange(25) % 10,
        "test_images": test.images, "test_labels": test.labels,
    } | changes  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays
