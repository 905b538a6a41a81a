"""Street View House Numbers, cropped digits, from Matlab's files."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.official import DOWNLOADS, SVHN_EXTRA, required
from byzshield_exp.datasets.pixels import Statistics
from byzshield_exp.errors import first_line

_TRAIN = Statistics(mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970))
_WITH_EXTRA = Statistics(
    mean=(109.9 / 255, 109.7 / 255, 113.8 / 255), std=(50.1 / 255, 50.6 / 255, 50.8 / 255)
)


def svhn(
    root: str = "data",
    extra: bool = False,
    num_validation: int = 0,
    augment: Literal["none", "crop"] = "none",
) -> Dataset:
    """House numbers' digits of 32 x 32 pixels, in colour: 73,257 to train and 26,032 to test.

    Standardised with mean 0.4377, 0.4438, 0.4728 and standard deviation 0.1980, 0.2010, 0.1970,
    those of the training pictures as public codes have them; with ``extra`` with those of
    DeVries and Taylor's code (Cutout, 2017): 109.9, 109.7, 113.8 and 50.1, 50.6, 50.8, of 255.
    The ByzShield code uses CIFAR-10's, and mirrors digits.

    Args:
        root: the folder above ``SVHN``, where the three .mat files lie.
        extra: whether the 531,131 easier pictures are trained on too (1.6 GB more in every process,
            and twice as much while they are read).
        num_validation: training pictures that are held out.
        augment: ``crop``: reflected by 4 pixels and cropped; never mirrored.

    Raises:
        ValueError: if files are missing or are not SVHN's.

    Source: Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning",
    2011, format 2.
    """
    files = [download.gives[0] for download in DOWNLOADS["svhn"]]
    train, test = (_read(required(root, path, "svhn")) for path in files)
    if extra:
        more = _read(required(root, SVHN_EXTRA.gives[0], "svhn", " dataset.extra=true"))
        train = Pictures(
            torch.cat([train.images, more.images]), torch.cat([train.labels, more.labels])
        )
    statistics = _WITH_EXTRA if extra else _TRAIN
    return divided(train, test, 10, statistics, augment, num_validation)


def _read(path: Path) -> Pictures:
    """``X [32, 32, 3, n]`` and ``y [n, 1]``, in which 10 is the digit 0."""
    content = _matlab(path)
    images, labels = content.get("X"), content.get("y")
    if images is None or labels is None:
        raise ValueError(f"{path} is no file of SVHN: it needs X and y")
    shapes = f"X {list(images.shape)} {images.dtype}, y {list(labels.shape)} {labels.dtype}"
    is_right = images.shape[:3] == (32, 32, 3) and images.ndim == 4 and images.dtype == np.uint8
    if not is_right or labels.shape != (images.shape[3], 1):
        raise ValueError(f"{path} is no file of SVHN: {shapes}")
    if labels.dtype.kind not in "iu" or not ((labels >= 1) & (labels <= 10)).all():
        raise ValueError(f"{path} is no file of SVHN: its labels must lie in 1..10")
    return Pictures(
        torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))),
        torch.from_numpy(labels[:, 0].astype(np.int64) % 10),
    )


def _matlab(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # slow to import, and needed only here

    try:
        return dict(loadmat(path, variable_names=["X", "y"]))
    except MemoryError:
        raise
    except Exception as error:  # whatever another file makes of the reader
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from error
