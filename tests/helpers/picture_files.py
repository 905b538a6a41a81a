"""Small files of the official formats, and what is in them."""

import gzip
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


def write_mnist(folder: Path, packed: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    arrays = {}
    for seed, (name, shape) in enumerate(MNIST_FILES.items()):
        content, arrays[name] = idx(shape, seed)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return arrays


def cifar_records(pictures: Made, coarse: bool) -> bytes:
    """A label or two, then red, green and blue, pixel by pixel."""
    content = bytearray()
    for image, label in zip(pictures.images, pictures.labels, strict=True):
        content += bytes([label % 20, label] if coarse else [label])
        for channel in image:
            for row in channel:
                content += bytes(row.tolist())
    return bytes(content)


def write_cifar10(root: Path, each: int = 5) -> tuple[Made, Made]:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    batches = [made(each, seed) for seed in range(6)]
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for name, batch in zip(names, batches, strict=True):
        (folder / name).write_bytes(cifar_records(batch, coarse=False))
    images, labels = (np.concatenate(part) for part in zip(*batches[:5], strict=True))
    return Made(images, labels), batches[5]


def write_cifar100(root: Path) -> tuple[Made, Made]:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    train, test = made(25, 0, classes=100), made(6, 1, classes=100)
    (folder / "train.bin").write_bytes(cifar_records(train, coarse=True))
    (folder / "test.bin").write_bytes(cifar_records(test, coarse=True))
    return train, test


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
