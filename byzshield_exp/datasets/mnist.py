"""MNIST and Fashion-MNIST from their four original files, packed or not."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.official import DOWNLOADS, required
from byzshield_exp.datasets.pixels import Statistics

_MNIST = Statistics(mean=(0.1307,), std=(0.3081,))
_FASHION = Statistics(mean=(0.2860,), std=(0.3530,))


def mnist(
    root: str = "data", num_validation: int = 0, augment: Literal["none", "crop"] = "none"
) -> Dataset:
    """Handwritten digits of 28 x 28 pixels in 10 classes: 60,000 to train and 10,000 to test.

    Standardised with mean 0.1307 and standard deviation 0.3081, those of the 60,000 pictures, as
    in PyTorch's example and the ByzShield code.

    Args:
        root: the folder above ``MNIST/raw``, where the four IDX files lie, with or without .gz.
        num_validation: training pictures that are held out.
        augment: ``crop``: reflected by 4 pixels and cropped; never mirrored.

    Raises:
        ValueError: if files are missing or are not IDX files.

    Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    return divided(*_read("mnist", root), 10, _MNIST, augment, num_validation)


def fashion_mnist(
    root: str = "data", num_validation: int = 0, augment: Literal["none", "crop"] = "none"
) -> Dataset:
    """Articles of clothing of 28 x 28 pixels in 10 classes: 60,000 to train and 10,000 to test.

    Standardised with mean 0.2860 and standard deviation 0.3530, those of the 60,000 pictures as
    public codes have them.

    Args:
        root: the folder above ``FashionMNIST/raw``, where the four IDX files lie, with or without
            .gz.
        num_validation: training pictures that are held out.
        augment: ``crop``: reflected by 4 pixels and cropped; never mirrored.

    Raises:
        ValueError: if files are missing or are not IDX files.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
    Machine Learning Algorithms", 2017.
    """
    return divided(*_read("fashion_mnist", root), 10, _FASHION, augment, num_validation)


def _read(dataset: str, root: str) -> tuple[Pictures, Pictures]:
    paths = [required(root, download.gives[0], dataset) for download in DOWNLOADS[dataset]]
    return _pictures(*paths[:2]), _pictures(*paths[2:])


def _pictures(images_path: Path, labels_path: Path) -> Pictures:
    images, labels = _read_idx(images_path), _read_idx(labels_path)
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        raise ValueError(
            f"{labels_path} and its pictures do not belong together: sizes {list(labels.shape)} "
            f"and {list(images.shape)}"
        )
    if len(labels) and int(labels.max()) > 9:
        raise ValueError(f"{labels_path} has the class {int(labels.max())}, the bound is 9")
    return Pictures(images.unsqueeze(1), labels.long())


def _read_idx(path: Path) -> Tensor:
    """One IDX file of bytes: two zeros, type 8, the number of sizes, the sizes, the bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is not an IDX file of bytes")
    header = 4 + 4 * content[3]
    sizes = [int(size) for size in np.frombuffer(content[4:header], dtype=">i4")]
    if not math.prod(sizes):
        raise ValueError(f"{path} is empty: it is of sizes {sizes}")
    if len(content) - header != math.prod(sizes):
        raise ValueError(
            f"{path} is damaged: it has {len(content)} bytes instead of "
            f"{header + math.prod(sizes)}, of sizes {sizes}"
        )
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).view(sizes)
