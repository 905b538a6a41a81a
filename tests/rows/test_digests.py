import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp.rows.digests import DIGEST_BYTES, RowHasher, row_digest

ROW = torch.tensor([1.0, -2.0, 3.0])


def test_a_digest_is_of_the_bytes():
    digest = row_digest(ROW, 4, 2, True)
    assert len(digest) == DIGEST_BYTES == 32
    assert row_digest(ROW.clone(), 4, 2, True) == digest
    assert row_digest(torch.tensor([0.0]), 0, 0) != row_digest(torch.tensor([-0.0]), 0, 0)


def test_whatever_is_said_beside_the_bytes_is_in_it():
    four, eight = torch.zeros(8, dtype=torch.float32), torch.zeros(4, dtype=torch.float64)
    digests = [
        row_digest(ROW, 4, 2, True),
        row_digest(ROW, 5, 2, True),
        row_digest(ROW, 4, 3, True),
        row_digest(ROW, 4, 2, False),
        row_digest(four, 4, 2, True),
        row_digest(eight, 4, 2, True),  # the same bytes as the line before
        row_digest(torch.zeros(16, dtype=torch.bfloat16), 4, 2, True),
        row_digest(torch.zeros(16, dtype=torch.float16), 4, 2, True),
    ]
    assert len(set(digests)) == len(digests)


def test_whether_the_row_is_finite_is_looked_at_unless_it_is_said():
    assert row_digest(ROW, 0, 0) == row_digest(ROW, 0, 0, True)
    bad = torch.tensor([1.0, torch.nan])
    assert row_digest(bad, 0, 0) == row_digest(bad, 0, 0, False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_strided_row_counts_as_its_copy(dtype):
    row = torch.arange(6, dtype=dtype)
    assert row_digest(row[::2], 1, 1) == row_digest(row[::2].clone(), 1, 1)
    assert row_digest(row[:1].expand(4), 1, 1) == row_digest(row[:1].repeat(4), 1, 1)


@settings(deadline=None)
@given(st.integers(0, 3000), st.lists(st.integers(0, 3000), max_size=5))
def test_parts_make_the_digest_of_the_whole(size, cuts):
    row = torch.arange(size, dtype=torch.float32)
    hasher = RowHasher(torch.float32, size, 7, 3, True)
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    for start, stop in itertools.pairwise(edges):
        hasher.update(row[start:stop])
    assert hasher.digest() == row_digest(row, 7, 3, True)


@pytest.mark.parametrize(
    "buffer",
    [ROW, ROW.view(torch.uint8), ROW.numpy(), ROW.numpy().view(np.uint8), ROW.numpy().tobytes(),
     bytearray(ROW.numpy().tobytes()), memoryview(ROW.numpy())],
)  # fmt: skip
def test_a_part_is_any_buffer(buffer):
    hasher = RowHasher(torch.float32, 3, 0, 0, True)
    hasher.update(buffer)
    assert hasher.digest() == row_digest(ROW, 0, 0, True)


def test_too_few_and_too_many_bytes_are_refused():
    hasher = RowHasher(torch.float32, 3, 0, 0, True)
    hasher.update(ROW[:2])
    with pytest.raises(ValueError, match="4 bytes of the row are missing"):
        hasher.digest()
    with pytest.raises(ValueError, match="8 bytes of a row that lacks 4"):
        hasher.update(ROW[:2])


def test_the_digest_does_not_change_between_versions():
    """Ranks of one run may not disagree on it, nor a run that is resumed."""
    expected = "bacd5301ab4dc0b12bf9a234c38d70678c1b99db7331b6de00be833642e68254"
    assert row_digest(ROW, 4, 2, True).hex() == expected
