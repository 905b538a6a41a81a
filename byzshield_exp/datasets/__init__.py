"""ON WHICH DATA: pictures as tensors, and which of them make up a file."""

from byzshield_exp.datasets.batches import Batches, nearest_batch_size
from byzshield_exp.datasets.cifar import cifar10, cifar100
from byzshield_exp.datasets.dataset import Dataset, Part, Pictures, divided
from byzshield_exp.datasets.digits import digits
from byzshield_exp.datasets.image_folder import image_folder
from byzshield_exp.datasets.mnist import fashion_mnist, mnist
from byzshield_exp.datasets.npz import npz
from byzshield_exp.datasets.official import has_known_pictures, is_missing
from byzshield_exp.datasets.stand_in import stand_in
from byzshield_exp.datasets.svhn import svhn
from byzshield_exp.datasets.synthetic import synthetic

__all__ = [
    "Batches",
    "Dataset",
    "Part",
    "Pictures",
    "cifar10",
    "cifar100",
    "digits",
    "divided",
    "fashion_mnist",
    "has_known_pictures",
    "image_folder",
    "is_missing",
    "mnist",
    "nearest_batch_size",
    "npz",
    "stand_in",
    "svhn",
    "synthetic",
]
