"""Random numbers that nobody can choose (MPRNG), and what is drawn from them.

Each peer commits to a secret, and opens it when all have committed. The exclusive or of the secrets
is random if one of them is. In this simulation a secret follows from the seed, so that a run can be
repeated; the attacks here do not use that.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from blake3 import blake3
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.streams import Stream, generator

SECRET_BYTES = 32
_COMMITMENT, _DIRECTIONS, _DUTIES = b"btard secret v1", b"btard directions v1", b"btard duties v1"


def secret(seed: int, step: int, attempt: int, peer: int) -> tuple[bytes, bytes]:
    """A peer's secret of one attempt and the salt that hides it, 32 bytes each."""
    drawn = generator(seed, Stream.LOTTERY, step, attempt, peer).bytes(2 * SECRET_BYTES)
    return drawn[:SECRET_BYTES], drawn[SECRET_BYTES:]


def commitment(step: int, attempt: int, peer: int, opened: tuple[bytes, bytes]) -> bytes:
    """What a peer says before the secrets are opened, 32 bytes."""
    numbers = np.array([step, attempt, peer], dtype="<i8").tobytes()
    return blake3(_COMMITMENT + numbers + opened[0] + opened[1]).digest()


def combined(secrets: Iterable[bytes]) -> bytes:
    """Their exclusive or."""
    total = np.zeros(SECRET_BYTES, dtype=np.uint8)
    for one in secrets:
        total ^= np.frombuffer(one, dtype=np.uint8)
    return total.tobytes()


def directions(drawn: bytes, part: int, count: int, size: int) -> Float[Tensor, "k c"]:
    """Directions in which the sums of a part are checked: standard normal entries, float32.

    Args:
        drawn: what all secrets gave.
        part: its number.
        count: k.
        size: entries of the part.
    """
    random = _generator(_DIRECTIONS + part.to_bytes(8, "little"), drawn)
    return torch.from_numpy(random.standard_normal((count, size), dtype=np.float32))


def duties(
    drawn: bytes, active: Sequence[int], live: Sequence[int], count: int
) -> list[tuple[int, int]]:
    """Draw (validator, target) for the next step; nobody is two of them.

    Args:
        drawn: what all secrets gave.
        active: who computed in this step: targets are among them.
        live: who is there: validators are among them.
        count: pairs that are asked for; validators are always fewer than half of the live peers.
    """
    count = max(0, min(count, (len(live) - 1) // 2, len(active)))
    random = _generator(_DUTIES, drawn)
    targets = random.permutation(np.array(active, dtype=np.int64))[:count].tolist()
    rest = [peer for peer in live if peer not in targets]
    validators = random.permutation(np.array(rest, dtype=np.int64))[:count].tolist()
    return list(zip(validators, targets, strict=True))


def _generator(purpose: bytes, drawn: bytes) -> np.random.Generator:
    words = np.frombuffer(blake3(purpose + drawn).digest(), dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence(words.tolist()))
