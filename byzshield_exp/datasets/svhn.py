"""Street View House Numbers, cropped digits."""

from typing import Literal

from byzshield_exp.datasets.dataset import Dataset, divided
from byzshield_exp.datasets.official import read
from byzshield_exp.datasets.pixels import Statistics

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
        root: the folder of the .mat files, or the folder above ``SVHN``, which has them.
        extra: whether the 531,131 easier pictures are trained on too (1.6 GB more in every process,
            and twice as much while they are read).
        num_validation: training pictures that are held out.
        augment: ``crop``: training pictures are reflected by 4 pixels and cropped, not mirrored.

    Raises:
        ValueError: if files are missing or are not the official ones.

    Source: Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning",
    2011, format 2.
    """
    statistics = _WITH_EXTRA if extra else _TRAIN
    return divided(*read("svhn", root, extra), 10, statistics, augment, num_validation)
