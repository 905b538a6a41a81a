"""What peers post in each round: fixed sizes, and nothing that is unpickled.

A posting is a NumPy record; its fields are the message. Flags are bytes, and any but 0 is true.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from torch import Tensor

from byzshield_exp.rows.digests import DIGEST_BYTES, bytes_of
from byzshield_exp.training.btard.lottery import SECRET_BYTES

Posting = np.void
Postings = Mapping[int, Posting]  # by peer
Field = tuple[str, str] | tuple[str, str, tuple[int, ...]]
Fields = Mapping["Phase", list[Field]]
_DIGEST = ("u1", (DIGEST_BYTES,))
_PART, _AGGREGATE, _PARAMS = b"btard part v1", b"btard aggregate v1", b"btard parameters v1"


class Phase(StrEnum):
    """Rounds and swaps of an attempt in their order; in ``CLIP`` nothing travels."""

    COMMIT = "commit"
    SCATTER = "scatter"
    CLIP = "clip"
    AGGREGATE = "aggregate"
    REVEAL = "reveal"
    GATHER = "gather"
    SUMS = "sums"
    VERDICT = "verdict"
    EVIDENCE = "evidence"


def form(
    phase: Phase, peers: int, parts: int, projections: int, verifies: bool = True
) -> np.dtype[np.void]:
    """The form of a round's postings.

    Args:
        phase: the round.
        peers: K.
        parts: n, peers that aggregate in this attempt.
        projections: k.
        verifies: whether peers check each other; else they only say what is missing.
    """
    complaints: Field = ("complaints", "u1", (peers,))
    found: list[Field] = [("iterations", "<i4"), ("clipped", "<i4"), ("residual", "<f8")]
    plain: Fields = {
        Phase.COMMIT: [("loss", "<f8")],
        Phase.AGGREGATE: [*found, complaints],
        Phase.SUMS: [complaints],
    }
    checked: Fields = {
        Phase.COMMIT: [
            ("loss", "<f8"),
            ("accuses", "u1"),  # the target, of a validator
            ("params", *_DIGEST),
            ("commitment", *_DIGEST),
            ("finite", "u1", (parts,)),
            ("digests", "u1", (parts, DIGEST_BYTES)),
        ],
        Phase.AGGREGATE: [*found, complaints, ("finite", "u1"), ("digest", *_DIGEST)],
        Phase.REVEAL: [("secret", "u1", (SECRET_BYTES,)), ("salt", "u1", (SECRET_BYTES,))],
        Phase.SUMS: [complaints, ("s", "<f8", (parts, projections)), ("nu", "<f8", (parts,))],
        Phase.VERDICT: [("accuses", "u1", (peers,))],
    }
    return np.dtype((checked if verifies else plain)[phase])


def evidence_form(size: int) -> np.dtype[np.void]:
    """The form of a row's parts that are shown to all: ``size`` entries."""
    return np.dtype([("row", "<f4", (size,))])


def blank(of: np.dtype[np.void]) -> Posting:
    """A posting of zeros."""
    posting: Posting = np.zeros(1, dtype=of)[0]
    return posting


def unpacked(bundle: Mapping[int, bytes], of: np.dtype[np.void]) -> dict[int, Posting]:
    """Read what came; a posting of another size is none."""
    return {
        peer: np.ndarray(1, of, content)[0]  # frombuffer takes no form of zero bytes
        for peer, content in bundle.items()
        if len(content) == of.itemsize
    }


def column(postings: Postings, peers: Sequence[int], name: str) -> NDArray[np.generic]:
    """One field of some peers' postings, ``[n, ...]``."""
    return np.stack([postings[peer][name] for peer in peers])


def flagged(values: NDArray[np.generic]) -> list[int]:
    """Places of a field of flags that are set."""
    return [int(place) for place in np.flatnonzero(values)]


def part_digest(
    step: int, attempt: int, peer: int, part: int, values: Tensor, is_finite: bool
) -> bytes:
    """What a peer commits to before it sends a part; what is not finite is not told apart."""
    return _digest(_PART, (step, attempt, peer, part, values.numel(), is_finite), values)


def aggregate_digest(step: int, attempt: int, peer: int, values: Tensor, is_finite: bool) -> bytes:
    """What a peer commits to before it sends its aggregate."""
    return _digest(_AGGREGATE, (step, attempt, peer, 0, values.numel(), is_finite), values)


def params_digest(params: Tensor) -> bytes:
    """By which peers compare their parameters."""
    return blake3(_PARAMS, max_threads=1).update(bytes_of(params.cpu()).data).digest()


def _digest(purpose: bytes, numbers: tuple[int, ...], values: Tensor) -> bytes:
    hasher = blake3(purpose + np.array(numbers, dtype="<i8").tobytes())
    if numbers[-1] and values.numel():
        hasher.update(bytes_of(values.detach().cpu()).data)
    return hasher.digest()
