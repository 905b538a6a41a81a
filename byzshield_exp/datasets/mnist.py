"""MNIST and Fashion-MNIST."""

from typing import Literal

from byzshield_exp.datasets.dataset import Dataset, divided
from byzshield_exp.datasets.official import read
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
        root: the folder above ``MNIST/raw``, where the four unpacked IDX files lie. They are read
            even if they are not the official ones; ``byzshield prepare`` compares their sizes.
        num_validation: training pictures that are held out.
        augment: ``crop``: training pictures are reflected by 4 pixels and cropped, not mirrored.

    Raises:
        ValueError: if files are missing or are not IDX files.

    Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    return divided(*read("mnist", root), 10, _MNIST, augment, num_validation)


def fashion_mnist(
    root: str = "data", num_validation: int = 0, augment: Literal["none", "crop"] = "none"
) -> Dataset:
    """Articles of clothing of 28 x 28 pixels in 10 classes: 60,000 to train and 10,000 to test.

    Standardised with mean 0.2860 and standard deviation 0.3530, those of the 60,000 pictures as
    public codes have them.

    Args:
        root: the folder above ``FashionMNIST/raw``, where the four unpacked IDX files lie.
        num_validation: training pictures that are held out.
        augment: ``crop``: training pictures are reflected by 4 pixels and cropped, not mirrored.

    Raises:
        ValueError: if files are missing or are not IDX files.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
    Machine Learning Algorithms", 2017.
    """
    return divided(*read("fashion_mnist", root), 10, _FASHION, augment, num_validation)
