"""Which samples make up the batch and the files of a step."""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from byzshield_exp.streams import Stream, generator


def nearest_batch_size(num_files: int, target: int = 300) -> int:
    """Return the multiple of ``num_files`` nearest to ``target``; in a tie the larger one."""
    return max(1, (2 * target + num_files) // (2 * num_files)) * num_files


class Batches:
    """Cut an endless stream of shuffled epochs into batches, and a batch into equal files.

    Position ``p`` of the stream is sample ``p mod n`` of the permutation of epoch ``p // n``;
    step ``t`` takes positions ``t*b .. (t+1)*b - 1``, and file ``i`` the i-th of their ``f`` equal
    parts. So every sample is used equally often, and everything is a function of (seed, step).
    """

    def __init__(self, num_samples: int, batch_size: int, num_files: int, seed: int) -> None:
        if batch_size < 1 or batch_size % num_files:
            raise ValueError(f"a batch of {batch_size} does not split into {num_files} equal files")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.file_size = batch_size // num_files
        self._seed = seed
        self._permutation = lru_cache(maxsize=4)(
            lambda epoch: generator(seed, Stream.DATA, epoch).permutation(num_samples)
        )

    def steps_in(self, epochs: int | float) -> int:
        """Return how many steps use every sample so often: rounded up, as no batch is cut."""
        return math.ceil(Fraction(str(epochs)) * self.num_samples / self.batch_size)

    def file(self, step: int, file: int) -> Int[Tensor, " b_over_f"]:
        """Return the sample numbers of one file of one step."""
        start = step * self.batch_size + file * self.file_size
        positions = np.arange(start, start + self.file_size)
        epochs, places = np.divmod(positions, self.num_samples)
        parts = [self._permutation(int(e))[places[epochs == e]] for e in np.unique(epochs)]
        return torch.from_numpy(np.concatenate(parts))

    def random(self, step: int, file: int) -> np.random.Generator:
        """Return the generator that augments a file: the same for every worker that holds it."""
        return generator(self._seed, Stream.AUGMENT, step, file)
