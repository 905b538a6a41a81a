"""scikit-learn's handwritten digits: real data that needs no download."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from byzshield_exp.datasets.dataset import Dataset

NUM_TEST = 360


def digits() -> Dataset:
    """1,437 training and 360 test pictures of 8 x 8 pixels in 10 classes, permuted with seed 0.

    Raises:
        ValueError: if scikit-learn is not installed.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998,
    as packaged by scikit-learn. Its file is read directly, since importing scikit-learn costs a
    second in each of many processes.
    """
    table = np.loadtxt(_packaged_file(), delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    images = torch.from_numpy(table[:, :-1].copy()).view(-1, 1, 8, 8)
    train, test = slice(NUM_TEST, None), slice(NUM_TEST)
    centre, spread = images[train].mean(), images[train].std()
    images = (images - centre) / spread
    return Dataset(images[train], labels[train], images[test], labels[test], num_classes=10)


def _packaged_file() -> Path:
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ValueError("the digits are packaged with scikit-learn: pip install scikit-learn")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
