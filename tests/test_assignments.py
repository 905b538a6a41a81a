import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byzshield_exp.assignments import (
    Assignment,
    baseline,
    fractional_repetition,
    mols,
    ramanujan_one,
    ramanujan_two,
)

# ByzShield, MLSys 2021, Table 2: l = 5, r = 3.
TABLE_2 = [
    [0, 9, 13, 17, 21], [1, 5, 14, 18, 22], [2, 6, 10, 19, 23], [3, 7, 11, 15, 24],
    [4, 8, 12, 16, 20], [0, 8, 11, 19, 22], [1, 9, 12, 15, 23], [2, 5, 13, 16, 24],
    [3, 6, 14, 17, 20], [4, 7, 10, 18, 21], [0, 7, 14, 16, 23], [1, 8, 10, 17, 24],
    [2, 9, 11, 18, 20], [3, 5, 12, 19, 21], [4, 6, 13, 15, 22],
]  # fmt: skip
VALID = {
    "baseline": (baseline(7), (7, 7, 1, 1)),
    "groups": (fractional_repetition(15, 3), (15, 5, 1, 3)),
    "mols 15": (mols(15, 3), (15, 25, 5, 3)),
    "mols 35": (mols(35, 5), (35, 49, 7, 5)),
    "mols even r": (mols(10, 2), (10, 25, 5, 2)),
    "ramanujan 1": (ramanujan_one(15, 3), (15, 25, 5, 3)),
    "ramanujan 2": (ramanujan_two(25, 5), (25, 25, 5, 5)),
    "ramanujan 2, m=10": (ramanujan_two(25, 5, m=10), (25, 50, 10, 5)),
}


@pytest.mark.parametrize("name", VALID)
def test_sizes_are_the_papers(name):
    assignment, (workers, files, load, replication) = VALID[name]
    assert assignment.num_workers == workers
    assert assignment.num_files == files
    assert assignment.load == load
    assert assignment.replication == replication
    assert assignment.majority == replication // 2 + 1


@pytest.mark.parametrize("name", VALID)
def test_slots_lead_back_to_the_file(name):
    assignment = VALID[name][0]
    flat = assignment.files_of_worker.flatten()
    for file, slots in enumerate(assignment.slots_of_file):
        assert (flat[slots] == file).all()
        assert assignment.workers_of_file[file].tolist() == sorted(
            set((slots // assignment.load).tolist())
        )
    assert torch.equal(
        assignment.incidence.sum(dim=0), torch.full((assignment.num_files,), assignment.replication)
    )


def test_mols_is_table_2_of_the_paper():
    assert mols(15, 3).files_of_worker.tolist() == TABLE_2


@pytest.mark.parametrize("name", ["mols 15", "mols 35", "ramanujan 1", "ramanujan 2"])
def test_two_workers_of_a_net_share_at_most_one_file(name):
    incidence = VALID[name][0].incidence.int()
    shared = incidence @ incidence.T
    shared.fill_diagonal_(0)
    assert int(shared.max()) == 1


def test_ramanujan_is_the_block_matrix_of_cyclic_shifts():
    size, blocks = 5, 10
    shift = torch.roll(torch.eye(size, dtype=torch.int64), 1, dims=1)
    # P[i, j] = 1 iff j = i - 1 (mod s)
    shift = torch.stack(
        [torch.roll(torch.eye(size, dtype=torch.int64)[i], -1) for i in range(size)]
    )
    block = torch.cat(
        [
            torch.cat([torch.matrix_power(shift, a * c) for c in range(blocks)], dim=1)
            for a in range(size)
        ]
    )
    assert torch.equal(ramanujan_two(25, 5, m=blocks).incidence.long(), block)
    assert torch.equal(ramanujan_one(15, 3).incidence.long(), block[:, : 3 * size].T)


def test_groups_are_found_where_there_are_some():
    assert fractional_repetition(6, 3).groups == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="no groups"):
        _ = mols(15, 3).groups


@pytest.mark.parametrize(
    ("scheme", "workers", "replication", "message"),
    [
        (mols, 16, 3, "nearest are K=15 .l=5., K=21 .l=7."),
        (mols, 12, 3, "nearest are .*K=15"),  # l = 4 is no prime
        (mols, 9, 3, "nearest are K=15"),  # l = 3 < r + 1
        (ramanujan_one, 16, 3, "nearest are K=15 .s=5., K=21 .s=7."),
        (ramanujan_one, 15, 1, "r >= 2"),
        (ramanujan_two, 24, 5, "nearest are K=9 .r=3., K=25 .r=5."),
        (ramanujan_two, 16, 4, "r prime"),
        (fractional_repetition, 16, 3, "nearest are K=15, K=18"),
        (fractional_repetition, 3, 5, "1 <= r <= K"),
    ],
)
def test_a_size_that_does_not_fit_names_the_nearest(scheme, workers, replication, message):
    with pytest.raises(ValueError, match=message) as error:
        scheme(workers, replication)
    assert f"K={workers}" in str(error.value)
    assert f"r={replication}" in str(error.value)


def test_ramanujan_two_needs_m_to_be_a_multiple_of_r():
    with pytest.raises(ValueError, match="m=7 r=5"):
        ramanujan_two(25, 5, m=7)


@pytest.mark.parametrize("files", [[[0, 0], [1, 1]], [[0, 1], [0, 2]], [[0, 3], [0, 3]]])
def test_an_assignment_that_is_not_biregular_is_refused(files):
    with pytest.raises(ValueError, match=r"holders|twice"):
        Assignment(torch.tensor(files))


@given(st.integers(1, 60), st.integers(1, 8))
def test_mols_accepts_exactly_the_sizes_that_it_names(workers, replication):
    load = workers / replication
    fits = (
        load in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59)
        and load > replication
    )
    try:
        assert mols(workers, replication).num_files == load**2
    except ValueError:
        assert not fits
    else:
        assert fits
