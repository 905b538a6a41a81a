"""ON WHICH DATA: pictures as tensors, and which of them make up a file."""

from byzshield_exp.datasets.batches import Batches, nearest_batch_size
from byzshield_exp.datasets.dataset import Dataset, Part, Pictures, divided
from byzshield_exp.datasets.digits import digits
from byzshield_exp.datasets.mnist import mnist
from byzshield_exp.datasets.synthetic import synthetic

__all__ = [
    "Batches",
    "Dataset",
    "Part",
    "Pictures",
    "digits",
    "divided",
    "mnist",
    "nearest_batch_size",
    "synthetic",
]
