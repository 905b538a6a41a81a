"""Made-up pictures: one noisy prototype per class."""

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

    They reach the network as they are drawn, around 0.

    Args:
        num_train: training pictures.
        num_test: test pictures.
        num_classes: classes, equally likely.
        channels: channels of a picture.
        size: height and width of a picture, in pixels.
        noise: standard deviation around a prototype, whose entries have standard deviation 1.
        data_seed: another seed is another data set; the run's ``seed`` does not change it.
        num_validation: training pictures that are held out.

    Raises:
        ValueError: if a number is not positive.
    """
    counts = {"num_train": num_train, "num_test": num_test, "num_classes": num_classes}
    for name, value in (counts | {"channels": channels, "size": size}).items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
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
