"""In place of a known data set that lies elsewhere: its sizes, and no content."""

import torch

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.official import DOWNLOADS, found
from byzshield_exp.datasets.pixels import Statistics
from byzshield_exp.files import expand_user

_SIZES = {
    "mnist": (60_000, 10_000, (1, 28, 28), 10),
    "fashion_mnist": (60_000, 10_000, (1, 28, 28), 10),
    "cifar10": (50_000, 10_000, (3, 32, 32), 10),
    "cifar100": (50_000, 10_000, (3, 32, 32), 100),
    "svhn": (73_257, 26_032, (3, 32, 32), 10),
}
_SVHN_EXTRA = 531_131


def is_missing(dataset: str, root: str) -> bool:
    """Whether a data set that can be fetched is not in a folder."""
    needed = [path for download in DOWNLOADS.get(dataset, ()) for path in download.gives]
    return any(found(expand_user(root), path) is None for path in needed)


def stand_in(dataset: str, num_validation: int = 0, extra: bool = False) -> Dataset:
    """Zeros of a data set's sizes; they take no memory.

    Args:
        dataset: one that can be fetched.
        num_validation: training pictures that are held out.
        extra: SVHN's further training pictures.
    """
    train, test, shape, classes = _SIZES[dataset]

    def zeros(count: int) -> Pictures:
        images = torch.zeros(1, dtype=torch.uint8).expand(count, *shape)
        return Pictures(images, torch.zeros(1, dtype=torch.int64).expand(count))

    ones = (1.0,) * shape[0]
    train += _SVHN_EXTRA if extra else 0
    return divided(
        zeros(train), zeros(test), classes, Statistics(ones, ones), num_validation=num_validation
    )
