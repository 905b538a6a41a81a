"""A placeholder for an official data set that lies on other machines."""

import torch

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.official import OFFICIAL, SVHN_EXTRA
from byzshield_exp.datasets.pixels import Statistics


def stand_in(dataset: str, num_validation: int = 0, extra: bool = False) -> Dataset:
    """Make zeros of a data set's sizes; they take no memory.

    Args:
        dataset: one that can be fetched.
        num_validation: training pictures that are held out.
        extra: whether SVHN's further training pictures count.
    """
    official = OFFICIAL[dataset]

    def zeros(count: int) -> Pictures:
        images = torch.zeros(1, dtype=torch.uint8).expand(count, *official.shape)
        return Pictures(images, torch.zeros(1, dtype=torch.int64).expand(count))

    ones = (1.0,) * official.shape[0]
    train = zeros(official.num_train + (SVHN_EXTRA if extra else 0))
    statistics = Statistics(ones, ones)
    test, classes = zeros(official.num_test), official.num_classes
    return divided(train, test, classes, statistics, num_validation=num_validation)
