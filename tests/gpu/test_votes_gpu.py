"""Votes on rows of a GPU: bytes are compared there, and have the digests they have on the CPU."""

import numpy as np
import pytest
import torch

from byzshield_exp import votes
from byzshield_exp.rows.digests import row_digest, same_bytes
from byzshield_exp.votes import is_finite, winners
from byzshield_exp.votes.vote import VoteTraits

VOTES = {
    name: getattr(votes, name)
    for name in votes.__all__
    if isinstance(getattr(getattr(votes, name), "vote_traits", None), VoteTraits)
}


def row(*bits, width=64):
    """A row of float32 with these bits in front, and ones behind."""
    numbers = torch.ones(width).view(torch.int32)
    numbers[: len(bits)] = torch.tensor(bits, dtype=torch.int64).to(torch.int32)
    return numbers.view(torch.float32)


ZERO, MINUS_ZERO, NAN, OTHER_NAN, INF = 0, -(2**31), 0x7FC00000, 0x7FC00001, 0x7F800000
FILES = [
    [row(ZERO), row(MINUS_ZERO), row(ZERO), row(MINUS_ZERO), row(ZERO)],
    [row(NAN), row(OTHER_NAN), row(NAN), row(NAN), row(1, 2)],
    [row(1), None, row(1), row(INF), row(1)],
    [None, None, None, None, None],
    [row(1, 2), row(2, 1), row(3), row(4), row(5)],
    [row(7), row(8), row(8), row(7), row(7)],
    [row(1), row(1, width=65), row(1).bfloat16(), row(1), row(1, width=65)],
]


def on(device, files=FILES):
    return [[None if one is None else one.to(device, copy=True) for one in rows] for rows in files]


def replicas_for(vote, files):
    if vote.vote_traits.reads == "rows":
        return files
    return [[None if one is None else row_digest(one, 3, 4) for one in rows] for rows in files]


@pytest.mark.parametrize("name", VOTES)
def test_labels_and_winners_are_those_of_the_cpu(gpu, name):
    vote, here, there = VOTES[name], on("cuda"), on("cpu")
    labels = vote(replicas_for(vote, here))
    wanted = vote(replicas_for(vote, there))
    assert labels.tolist() == wanted.tolist()
    finite = is_finite(here, labels)
    assert finite.tolist() == is_finite(there, wanted).tolist()
    assert winners(labels, finite, 3).tolist() == winners(wanted, finite, 3).tolist()


def test_there_are_votes():
    assert {"auto", "digest", "majority", "tolerant"} <= VOTES.keys()


def test_bytes_count_and_not_numbers(gpu):
    labels = votes.majority(on("cuda"))
    assert labels.tolist()[:3] == [[0, 1, 0, 1, 0], [0, 1, 0, 0, 4], [0, -1, 0, 3, 0]]


def test_rows_in_the_same_memory_are_equal_and_so_are_copies(gpu):
    one = row(NAN).to("cuda")
    other = one.clone()
    assert votes.majority([[one, other, one, other, other]]).tolist() == [[0] * 5]
    assert same_bytes(one, other)
    other[-1] = -1
    assert votes.majority([[one, other, one, other, other]]).tolist() == [[0, 1, 0, 1, 1]]
    assert not same_bytes(one, other)


def test_a_large_row_differs_in_its_last_bit(gpu):
    one = torch.from_numpy(np.random.default_rng(0).standard_normal(gpu.width, np.float32))
    other = one.clone()
    other.view(torch.int32)[-1] ^= 1
    rows = [one.to("cuda"), other.to("cuda"), one.to("cuda")]
    assert votes.majority([rows]).tolist() == [[0, 1, 0]]
    assert row_digest(rows[0], 1, 2) == row_digest(one, 1, 2)
    assert row_digest(rows[1], 1, 2) == row_digest(other, 1, 2) != row_digest(one, 1, 2)


def test_a_finite_row_whose_sum_overflows_is_finite(gpu):
    huge = torch.full((gpu.width,), 3e38, device="cuda")
    bad = huge.clone()
    bad[5] = torch.inf
    assert is_finite([[huge, bad]], torch.tensor([[0, 1]])).tolist() == [[True, False]]


@pytest.mark.parametrize("shift", [1e-7, 1e-3])
def test_tolerant_agrees_up_to_rounding(gpu, shift):
    one = torch.from_numpy(np.random.default_rng(1).standard_normal(gpu.width, np.float32))
    files = [[one, one * (1 + shift), one, -one, one * (1 + shift)]]
    found = votes.tolerant(on("cuda", files), rtol=1e-5)
    assert found.tolist() == votes.tolerant(files, rtol=1e-5).tolist()
    assert len(set(found[0].tolist())) == (2 if shift < 1e-5 else 3)
