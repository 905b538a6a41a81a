"""How the server stores rows: equal ones once."""

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from socket_table import SIZE, row_of

from byzshield_exp.clusters.sockets.shelf import Copy, Shelf
from byzshield_exp.rows.digests import bytes_of


def receive(shelf, file, rows, splits):
    """Let several replicas come at once, some bytes at a time; the stored rows."""
    stored = {}
    copies = [Copy(shelf, file, partial_store(stored, i)) for i in range(len(rows))]
    streams = [memoryview(bytes(bytes_of(row))) for row in rows]
    at = [0] * len(rows)
    rest = ((i, 10**9) for i in range(len(rows)) for _ in range(len(streams[i])))
    for which, most in chain(splits, rest):
        which %= len(rows)
        left = len(streams[which]) - at[which]
        if left == 0:
            continue
        room = copies[which].room(min(most, left))
        assert 1 <= len(room) <= min(most, left)
        room[:] = streams[which][at[which] : at[which] + len(room)]
        copies[which].fill(len(room))
        at[which] += len(room)
        if at[which] == len(streams[which]):
            copies[which].close()
    return [stored[i] for i in range(len(rows))]


def partial_store(stored, i):
    return lambda row: stored.__setitem__(i, row)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_equal_replicas_are_stored_once_however_they_come(data):
    size = data.draw(st.integers(1, 40))
    versions = [torch.randn(size, generator=torch.Generator().manual_seed(0)) for _ in range(3)]
    for version in versions[1:]:
        bit = data.draw(st.integers(0, 32 * size - 1))
        version.view(torch.uint8)[bit // 8] ^= 1 << bit % 8
    chosen = data.draw(st.lists(st.sampled_from(versions), min_size=1, max_size=6))
    splits = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50)), max_size=80))
    shelf = Shelf(torch.zeros(2, size), bucket=data.draw(st.integers(1, 64)))
    for file in (0, 1):
        stored = receive(shelf, file, chosen, splits)
        assert all(
            torch.equal(a.view(torch.int32), b.view(torch.int32))
            for a, b in zip(stored, chosen, strict=True)
        )
        different = {bytes(bytes_of(row)) for row in chosen}
        assert len({row.data_ptr() for row in stored}) == len(different)


def test_a_row_that_colluders_send_for_all_files_is_stored_once():
    shelf, lie = Shelf(torch.zeros(5, SIZE), bucket=64), torch.ones(SIZE)
    for file in range(5):
        rows = [row_of(file), lie, row_of(file), lie]
        receive(shelf, file, rows, [(0, 10), (1, 20), (2, 100)])
    assert len(shelf.others) == 1


def test_what_is_left_of_the_step_before_changes_nothing():
    shelf = Shelf(torch.zeros(1, SIZE), bucket=16)
    late = Copy(shelf, 0, lambda row: pytest.fail("it is late"))
    late.room(8)[:] = bytes(8)
    late.fill(8)
    shelf.clear()
    (stored,) = receive(shelf, 0, [row_of(3)], [(0, 7)])
    for _ in range(SIZE * 4 - 8):
        late.room(1)[:] = b"x"
        late.fill(1)
    late.close()
    assert torch.equal(stored, row_of(3))
