"""Random numbers as functions of (seed, stream, position): nothing uses a global generator."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Separate streams, so that changing the attack changes no honest minibatch."""

    DATA = 0
    ADVERSARY = 1
    ATTACK = 2
    AGGREGATE = 3
    NETWORK = 4
    AUGMENT = 5


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """The generator of one place in a run: ``position`` is (), (step) or (step, file).

    The same arguments give the same numbers in every process, so nobody has to be told them.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, int(stream), *position]))
