"""ON WHICH DATA: pictures as tensors, and which of them make up a file."""

from byzshield_exp.datasets.batches import Batches, nearest_batch_size
from byzshield_exp.datasets.dataset import Dataset
from byzshield_exp.datasets.digits import digits
from byzshield_exp.datasets.mnist import mnist
from byzshield_exp.datasets.synthetic import synthetic

__all__ = ["Batches", "Dataset", "digits", "mnist", "nearest_batch_size", "synthetic"]
