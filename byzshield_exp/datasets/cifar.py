"""CIFAR-10 and CIFAR-100."""

from collections.abc import Iterable

from byzshield_exp.datasets.dataset import Dataset, divided
from byzshield_exp.datasets.official import read
from byzshield_exp.datasets.pixels import Augment, Statistics


def _per_255(mean: Iterable[float], std: Iterable[float]) -> Statistics:
    return Statistics(tuple(one / 255 for one in mean), tuple(one / 255 for one in std))


_CIFAR10 = _per_255((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
_CIFAR100 = _per_255((129.3, 124.1, 112.4), (68.2, 65.4, 70.4))


def cifar10(root: str = "data", num_validation: int = 0, augment: Augment = "crop_flip") -> Dataset:
    """Colour pictures of 32 x 32 pixels in 10 classes: 50,000 to train and 10,000 to test.

    Standardised and augmented as in the ByzShield code: mean 125.3, 123.0, 113.9 and standard
    deviation 63.0, 62.1, 66.7, of 255.

    Args:
        root: the folder above ``cifar-10-batches-py``.
        num_validation: training pictures that are held out.
        augment: ``crop_flip``: training pictures are reflected by 4 pixels, cropped and mirrored;
            ``crop``: they are not mirrored; ``none``: they stay as they are.

    Raises:
        ValueError: if files are missing or are not the official ones.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    return divided(*read("cifar10", root), 10, _CIFAR10, augment, num_validation)


def cifar100(
    root: str = "data", num_validation: int = 0, augment: Augment = "crop_flip"
) -> Dataset:
    """Colour pictures of 32 x 32 pixels in 100 classes: 50,000 to train and 10,000 to test.

    Standardised with mean 129.3, 124.1, 112.4 and standard deviation 68.2, 65.4, 70.4, of 255
    (Xie et al., CVPR 2017, in their code for ResNeXt); the ByzShield code uses CIFAR-10's.

    Args:
        root: the folder above ``cifar-100-python``.
        num_validation: training pictures that are held out.
        augment: ``crop_flip``: training pictures are reflected by 4 pixels, cropped and mirrored;
            ``crop``: they are not mirrored; ``none``: they stay as they are.

    Raises:
        ValueError: if files are missing or are not the official ones.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the fine
    labels.
    """
    return divided(*read("cifar100", root), 100, _CIFAR100, augment, num_validation)
