import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp.assignments import (
    Assignment,
    affine_plane,
    baseline,
    custom,
    fractional_repetition,
    mols,
    projective_plane,
    ramanujan_one,
    ramanujan_two,
    random,
    steiner,
    subsets,
)
from byzshield_exp.assignments.fields import field, inverses, negatives

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
    "mols GF(4)": (mols(12, 3), (12, 16, 4, 3)),
    "mols GF(8)": (mols(40, 5), (40, 64, 8, 5)),
    "mols GF(9)": (mols(63, 7), (63, 81, 9, 7)),
    "mols with columns": (mols(49, 7), (49, 49, 7, 7)),
    "mols with columns and rows": (mols(20, 5), (20, 16, 4, 5)),
    "affine plane": (affine_plane(25, 5), (25, 30, 6, 5)),
    "affine plane GF(4)": (affine_plane(16, 4), (16, 20, 5, 4)),
    "projective plane": (projective_plane(21, 5), (21, 21, 5, 5)),
    "projective plane 13": (projective_plane(13, 4), (13, 13, 4, 4)),
    "steiner 15": (steiner(15), (15, 35, 7, 3)),
    "steiner 9": (steiner(9), (9, 12, 4, 3)),
    "steiner 21": (steiner(21), (21, 70, 10, 3)),
    "steiner 13": (steiner(13), (13, 26, 6, 3)),
    "steiner 25": (steiner(25), (25, 100, 12, 3)),
    "subsets": (subsets(7, 3), (7, 35, 15, 3)),
    "random": (random(15, 3), (15, 15, 3, 3)),
    "random, load 5": (random(15, 3, load=5, placement_seed=4), (15, 25, 5, 3)),
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


NETS = [n for n in VALID if n.startswith(("mols", "ramanujan 1"))] + ["ramanujan 2"]
DESIGNS = [n for n in VALID if n.startswith(("affine", "projective", "steiner"))]


@pytest.mark.parametrize("name", DESIGNS)
def test_two_workers_of_a_design_share_exactly_one_file(name):
    incidence = VALID[name][0].incidence.int()
    shared = incidence @ incidence.T
    shared.fill_diagonal_(1)
    assert bool((shared == 1).all())


@pytest.mark.parametrize("name", [n for n in VALID if VALID[n][0].automorphisms is not None])
def test_automorphisms_map_files_onto_files(name):
    assignment = VALID[name][0]
    files = {tuple(row) for row in assignment.workers_of_file.tolist()}
    permutations = assignment.automorphisms()
    assert len({tuple(p) for p in permutations.tolist()}) == len(permutations)
    assert len(permutations) > 1
    for p in permutations[:: max(1, len(permutations) // 50)]:
        assert {tuple(sorted(p[list(holders)].tolist())) for holders in files} == files


@pytest.mark.parametrize("order", [2, 3, 4, 5, 7, 8, 9, 11, 16, 25, 27])
def test_fields_are_fields(order):
    add, times = field(order)
    numbers = list(range(order))
    assert add[0].tolist() == times[1].tolist() == numbers
    for x in numbers:
        assert sorted(add[x].tolist()) == numbers
        assert not x or sorted(times[x].tolist()) == numbers
        for y in (1, order // 2, order - 1):  # distributive
            assert times[x, add[y]].tolist() == add[times[x, y], times[x]].tolist()
    assert (add[numbers, negatives(add)] == 0).all()
    assert (times[numbers[1:], inverses(times)[1:]] == 1).all()
    with pytest.raises(ValueError, match="not a prime power"):
        field(12)


@pytest.mark.parametrize("name", NETS)
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
        (mols, 18, 3, "nearest are K=15 .l=5., K=21 .l=7."),  # l = 6 is no prime power
        (mols, 20, 10, "nearest are K=90 .l=9."),  # r > l + 1
        (affine_plane, 24, 5, "nearest are K=16 .r=4., K=25 .r=5."),
        (affine_plane, 36, 6, "nearest are K=25 .r=5., K=49 .r=7."),
        (affine_plane, 25, 3, "K=25 r=3"),
        (projective_plane, 22, 5, "nearest are K=21 .r=5., K=31 .r=6."),
        (projective_plane, 43, 7, "r-1 a prime power"),
        (steiner, 14, 3, "nearest are K=13, K=15"),
        (steiner, 15, 5, "needs r=3"),
        (subsets, 40, 7, "at most 20,000 files"),
        (random, 3, 5, "1 <= r <= K"),
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


@settings(deadline=None)  # the first field with p^k elements imports galois
@given(st.integers(1, 60), st.integers(1, 8))
def test_mols_accepts_exactly_the_sizes_that_it_names(workers, replication):
    load = workers / replication
    powers = (2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25, 27, 29, 31, 32, 37, 41, 43, 47, 49)
    fits = load in (*powers, 53, 59) and load + 1 >= replication
    try:
        assert mols(workers, replication).num_files == load**2
    except ValueError:
        assert not fits
    else:
        assert fits


@settings(deadline=None)
@given(st.integers(3, 14), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_random_placements_are_biregular_and_repeatable(workers, replication, load, seed):
    try:
        assignment = random(workers, replication, load, seed)
    except ValueError:
        assert replication > workers or workers * load % replication
        return
    again = random(workers, replication, load, seed)
    assert torch.equal(assignment.files_of_worker, again.files_of_worker)
    assert (assignment.num_workers, assignment.load) == (workers, load)
    assert assignment.replication == replication


def test_random_needs_whole_files():
    with pytest.raises(ValueError, match="K=7 load=5 r=3"):
        random(7, 3, load=5)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_custom_reads_a_matrix(tmp_path, suffix):
    original = mols(15, 3)
    path = tmp_path / f"matrix{suffix}"
    matrix = original.incidence.numpy().astype(int)
    np.save(path, matrix) if suffix == ".npy" else np.savetxt(path, matrix, "%d", delimiter=",")
    found = custom(str(path))
    assert torch.equal(found.files_of_worker, original.files_of_worker.sort(dim=1).values)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 2], [1, 0]], "zeros and ones"),
        ([[0.5, 0.5]], "zeros and ones"),
        ([[1, 0], [1, 0]], "nobody holds file 1"),
        ([[1, 1], [1, 0]], "unequal numbers of"),
        ([[1, 1, 0], [1, 0, 1]], "files have unequal numbers of holders, 1 to 2"),
        ([1, 0, 1], "K x f matrix"),
    ],
)
def test_a_malformed_custom_matrix_is_refused(tmp_path, matrix, message):
    np.save(tmp_path / "m.npy", np.array(matrix))
    with pytest.raises(ValueError, match=message):
        custom(str(tmp_path / "m.npy"))


@pytest.mark.parametrize("content", [None, b"a,b", b""])
def test_an_unreadable_custom_matrix_is_one_line(tmp_path, content):
    for suffix in (".npy", ".csv"):
        path = tmp_path / f"m{suffix}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=r"approach.path=.*cannot be read|K x f") as error:
            custom(str(path))
        assert len(str(error.value).splitlines()) == 1
