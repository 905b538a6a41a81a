"""MNIST from its four original files, packed or not."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.datasets.dataset import Dataset

_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_CENTRE, _SPREAD = 0.1307, 0.3081  # of the 60,000 training pictures, pixels in [0, 1]


def mnist(root: str = "data", download: bool = False) -> Dataset:
    """Handwritten digits of 28 x 28 pixels in 10 classes.

    Args:
        root: the folder above ``MNIST/raw``, where the four IDX files lie, with or without .gz.
        download: fetch missing files with torchvision first.

    Raises:
        ValueError: if files are missing, cannot be fetched, or are not IDX files.

    Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    folder = Path(root) / "MNIST" / "raw"
    missing = [name for name in _FILES.values() if _find(folder, name) is None]
    if missing and download:
        _download(root)
        missing = []
    if missing:
        raise ValueError(
            f"dataset.root={root} has no MNIST/raw/{missing[0]}[.gz]: run once with "
            f"dataset.download=true, or copy the four MNIST files to {folder}"
        )
    parts = {part: _read_idx(_find(folder, name), name) for part, name in _FILES.items()}
    _check(folder, parts)
    images = {
        part: ((parts[part].float() / 255 - _CENTRE) / _SPREAD).unsqueeze(1)
        for part in ("train_images", "test_images")
    }
    labels = {part: parts[part].long() for part in ("train_labels", "test_labels")}
    return Dataset(**images, **labels, num_classes=10)


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _check(folder: Path, parts: dict[str, Tensor]) -> None:
    for split in ("train", "test"):
        images, labels = parts[f"{split}_images"], parts[f"{split}_labels"]
        name = folder / _FILES[f"{split}_labels"]
        if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
            raise ValueError(
                f"{name} and its pictures do not belong together: sizes {list(labels.shape)} and "
                f"{list(images.shape)}"
            )
        if len(labels) and int(labels.max()) > 9:
            raise ValueError(f"{name} has the class {int(labels.max())}, the bound is 9")


def _download(root: str) -> None:
    from torchvision.datasets import MNIST  # slow to import, and needed only here

    try:
        MNIST(root, download=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"dataset.root={root}: the download of MNIST failed: {error}") from error


def _read_idx(path: Path | None, name: str) -> Tensor:
    """One IDX file of bytes: two zeros, type 8, the number of sizes, the sizes, the bytes."""
    if path is None:
        raise ValueError(f"the download of MNIST did not bring {name}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is not an IDX file of bytes")
    header = 4 + 4 * content[3]
    sizes = [int(size) for size in np.frombuffer(content[4:header], dtype=">i4")]
    if len(content) - header != math.prod(sizes):
        raise ValueError(f"{path} is cut short: {len(content) - header} bytes for sizes {sizes}")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).view(sizes)
