"""CIFAR-10 and CIFAR-100 from their binary version, which needs no unpickling."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.official import (
    CIFAR10_TEST,
    CIFAR10_TRAIN,
    CIFAR100_TEST,
    CIFAR100_TRAIN,
    required,
)
from byzshield_exp.datasets.pixels import Augment, Statistics

_SHAPE = (3, 32, 32)  # a record's last 3,072 bytes: red, green, blue, each row by row


def _per_255(mean: Iterable[float], std: Iterable[float]) -> Statistics:
    return Statistics(tuple(one / 255 for one in mean), tuple(one / 255 for one in std))


_CIFAR10 = _per_255((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
_CIFAR100 = _per_255((129.3, 124.1, 112.4), (68.2, 65.4, 70.4))


def cifar10(root: str = "data", num_validation: int = 0, augment: Augment = "crop_flip") -> Dataset:
    """Colour pictures of 32 x 32 pixels in 10 classes: 50,000 to train and 10,000 to test.

    Standardised and augmented as in the ByzShield code: mean 125.3, 123.0, 113.9 and standard
    deviation 63.0, 62.1, 66.7, of 255.

    Args:
        root: the folder above ``cifar-10-batches-bin``.
        num_validation: training pictures that are held out.
        augment: of training pictures: reflected by 4 pixels, cropped and mirrored; ``none``: as
            they are.

    Raises:
        ValueError: if files are missing or are not of the binary version.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    parts = _read("cifar10", root, CIFAR10_TRAIN, CIFAR10_TEST, (10,))
    return divided(*parts, 10, _CIFAR10, augment, num_validation)


def cifar100(
    root: str = "data", num_validation: int = 0, augment: Augment = "crop_flip"
) -> Dataset:
    """Colour pictures of 32 x 32 pixels in 100 classes: 50,000 to train and 10,000 to test.

    Standardised with mean 129.3, 124.1, 112.4 and standard deviation 68.2, 65.4, 70.4, of 255
    (Xie et al., CVPR 2017, in their code for ResNeXt); the ByzShield code uses CIFAR-10's.

    Args:
        root: the folder above ``cifar-100-binary``.
        num_validation: training pictures that are held out.
        augment: of training pictures: reflected by 4 pixels, cropped and mirrored; ``none``: as
            they are.

    Raises:
        ValueError: if files are missing or are not of the binary version.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the fine
    labels.
    """
    parts = _read("cifar100", root, CIFAR100_TRAIN, CIFAR100_TEST, (20, 100))
    return divided(*parts, 100, _CIFAR100, augment, num_validation)


def _read(
    dataset: str, root: str, train: tuple[str, ...], test: str, classes: tuple[int, ...]
) -> tuple[Pictures, Pictures]:
    """Training and test pictures; ``classes``: how many each label of a record may be of."""
    paths = [required(root, path, dataset) for path in (*train, test)]
    *parts, last = [_records(path, classes) for path in paths]
    images, labels = zip(*parts, strict=True)
    return Pictures(torch.cat(images), torch.cat(labels)), last


def _records(path: Path, classes: tuple[int, ...]) -> Pictures:
    """The records of a file: the labels, of which the last one counts, then the pixels."""
    content = np.fromfile(path, dtype=np.uint8)
    size = len(classes) + int(np.prod(_SHAPE))
    if not len(content) or len(content) % size:
        raise ValueError(f"{path} is damaged: {len(content)} bytes are no records of {size}")
    records = torch.from_numpy(content.reshape(-1, size))
    for place, bound in enumerate(classes):
        most = int(records[:, place].max())
        if most >= bound:
            raise ValueError(
                f"{path} is damaged: it has the class {most}, the bound is {bound - 1}"
            )
    images = records[:, len(classes) :].reshape(-1, *_SHAPE).contiguous()
    return Pictures(images, records[:, len(classes) - 1].long())
