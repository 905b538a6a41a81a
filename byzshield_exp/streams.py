"""Random numbers as functions of (seed, stream, position): nothing uses a global generator."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """Separate streams: another attack, for example, does not change the honest minibatches."""

    DATA = 0
    ADVERSARY = 1
    ATTACK = 2
    AGGREGATE = 3
    NETWORK = 4
    AUGMENT = 5
    DROPOUT = 6
    ATTACK_ONCE = 7  # (seed, ATTACK) would be (seed, ATTACK, 0, 0): a seed sequence ends in zeros
    LOTTERY = 8
    COIN = 9
    CHEAT = 10


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """The generator of one place in a run: ``position`` is (), (step) or (step, file).

    The same arguments give the same numbers in every process, so they are never sent.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, int(stream), *position]))


@contextmanager
def torch_seeded(random: np.random.Generator, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generator from ``random`` inside the block; restore it afterwards."""
    on_gpu = torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_gpu else []):
        torch.manual_seed(int(random.integers(2**62)))
        yield
