"""Made-up pictures: a prototype per class, and noise."""

import math
import os

import numpy as np
import torch

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.pixels import Statistics


def synthetic(
    num_train: int = 2000,
    num_test: int = 500,
    num_classes: int = 10,
    channels: int = 1,
    size: int = 8,
    noise: float = 1.0,
    data_seed: int = 0,
    num_validation: int = 0,
) -> Dataset:
    """A random prototype per class plus Gaussian noise of standard deviation ``noise``.

    Pictures are not standardised: they lie around 0 as they are drawn.

    Args:
        num_train: training pictures.
        num_test: test pictures.
        num_classes: classes, equally likely.
        channels: channels of a picture.
        size: height and width of a picture, in pixels.
        noise: standard deviation around a prototype, whose entries have standard deviation 1; at
            least 0.
        data_seed: another seed is another data set; the run's ``seed`` does not change it.
        num_validation: training pictures that are held out.

    Raises:
        ValueError: if a number is below its bound, or the pictures do not fit into memory.
    """
    counts = {"num_train": num_train, "num_test": num_test, "num_classes": num_classes}
    for name, value in (counts | {"channels": channels, "size": size}).items():
        if value < 1:
            raise ValueError(f"dataset.{name}={value} must be at least 1")
    if not 0 <= noise < math.inf:
        raise ValueError(f"dataset.noise={noise} must be finite and at least 0")
    if data_seed < 0:
        raise ValueError(f"dataset.data_seed={data_seed} must be at least 0")
    needed = 8 * (num_train + num_test + num_classes) * channels * size**2
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ValueError(
            f"dataset.num_train={num_train} num_test={num_test} num_classes={num_classes} "
            f"channels={channels} size={size} take {needed // 10**9} GB, this machine has "
            f"{memory // 10**9}"
        )
    random = np.random.default_rng(data_seed)
    shape = (channels, size, size)
    prototypes = random.standard_normal((num_classes, *shape))
    labels = random.integers(num_classes, size=num_train + num_test)
    images = prototypes[labels] + noise * random.standard_normal((len(labels), *shape))
    pictures, classes = torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels)
    return divided(
        Pictures(pictures[:num_train], classes[:num_train]),
        Pictures(pictures[num_train:], classes[num_train:]),
        num_classes,
        Statistics(mean=(0.0,) * channels, std=(1.0,) * channels),
        num_validation=num_validation,
    )
