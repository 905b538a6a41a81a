"""scikit-learn's handwritten digits: real data without a download."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided

NUM_TEST = 360


def digits(num_validation: int = 0) -> Dataset:
    """1,437 training and 360 test pictures of 8 x 8 pixels in 10 classes, permuted with seed 0.

    Standardised with the mean and the standard deviation of the training pictures.

    Args:
        num_validation: training pictures that are held out.

    Raises:
        ValueError: if scikit-learn is not installed.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998,
    as packaged by scikit-learn. We read its file directly: importing scikit-learn takes a second
    in each process.
    """
    table = np.loadtxt(_packaged_file(), delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    images = torch.from_numpy(table[:, :-1].copy()).view(-1, 1, 8, 8)
    train = Pictures(images[NUM_TEST:], labels[NUM_TEST:])
    test = Pictures(images[:NUM_TEST], labels[:NUM_TEST])
    return divided(train, test, num_classes=10, num_validation=num_validation)


def _packaged_file() -> Path:
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ValueError("the digits are packaged with scikit-learn: pip install scikit-learn")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
