import functools
import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp.rows.digests import row_digest
from byzshield_exp.votes import (
    ABSENT,
    NO_WINNER,
    auto,
    bytewise,
    count_disagreements,
    counting,
    digest,
    is_finite,
    majority,
    reads_digests,
    resolve,
    tolerant,
    winners,
)


def vote(*rows, needed=None):
    """The winning place of one file whose replicas are the given rows."""
    replicas = [[torch.as_tensor(row, dtype=torch.float32) for row in rows]]
    labels = majority(replicas)
    needed = needed or len(rows) // 2 + 1
    return int(winners(labels, is_finite(replicas, labels), needed)[0])


def test_labels_name_the_first_equal_replica():
    rows = [torch.tensor([float(x)]) for x in (1, 2, 1, 3, 2)]
    assert majority([rows]).tolist() == [[0, 1, 0, 3, 1]]


def test_the_majority_wins_wherever_it_stands():
    assert vote([1.0], [2.0], [2.0]) == 1
    assert vote([1.0], [2.0], [1.0]) == 0
    assert vote([5.0]) == 0


def test_without_a_strict_majority_there_is_no_winner():
    assert vote([1.0], [2.0], [3.0]) == NO_WINNER
    assert vote([1.0], [2.0]) == NO_WINNER
    assert vote([1.0], [1.0], [2.0], [2.0]) == NO_WINNER
    assert vote([1.0], [1.0], [2.0], [3.0], [4.0]) == NO_WINNER  # a plurality is not enough


def test_the_whole_gradient_counts_not_its_layers():
    # Entry by entry (1, 1) would win; as a whole, no two agree.
    assert vote([1.0, 1.0], [1.0, 2.0], [2.0, 1.0]) == NO_WINNER


def test_equality_is_of_bytes():
    assert majority([[torch.tensor([0.0]), torch.tensor([-0.0])]]).tolist() == [[0, 1]]
    nan = [torch.tensor([torch.nan]), torch.tensor([torch.nan])]
    assert majority([nan]).tolist() == [[0, 0]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_dtype_is_compared_bit_by_bit(dtype):
    row = torch.tensor([1.0, 2.0], dtype=dtype)
    other = row.clone()
    other.view({8: torch.int64, 4: torch.int32, 2: torch.int16}[row.element_size()])[0] ^= 1
    assert majority([[row, other, row.clone()]]).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_class_that_is_not_finite_wins_only_among_its_like(bad):
    assert vote([bad], [bad], [1.0]) == NO_WINNER
    assert vote([bad], [bad], [bad]) == 0
    assert vote([1.0], [1.0], [bad]) == 0


def test_disagreements_are_replicas_outside_the_largest_class():
    labels = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 1, 2]])
    assert count_disagreements(labels) == 0 + 1 + 2


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_winner_is_the_strict_majority_or_none(values):
    place = vote(*([float(value)] for value in values))
    most = max(values, key=values.count)
    if values.count(most) > len(values) / 2:
        assert values[place] == most
    else:
        assert place == NO_WINNER


def by_brute_force(rows):
    """The first place with the same bytes."""
    copies = [row if row is None else torch.empty(len(row)).to(row).copy_(row) for row in rows]
    kinds = [row if row is None else (row.dtype, row.view(torch.uint8).tolist()) for row in copies]
    return [ABSENT if kind is None else kinds.index(kind) for kind in kinds]


@st.composite
def replicas_with_flipped_bits(draw):
    """Files whose replicas are copies, one memory, strided, absent or a few bits apart."""
    size, replication = draw(st.integers(1, 70)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]))
    files = []
    for _ in range(draw(st.integers(1, 3))):
        base = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
        rows = []
        for _ in range(replication):
            row = base if draw(st.booleans()) else base.clone()
            if row is not base:
                flips = draw(st.lists(st.integers(0, 8 * base.nbytes - 1), max_size=2))
                for bit in flips:
                    row.view(torch.uint8)[bit // 8] ^= 1 << bit % 8
            if draw(st.booleans()):  # every second entry of a longer row
                row = torch.stack([row, torch.zeros_like(row)], dim=1).flatten()[::2]
            rows.append(None if draw(st.integers(0, 5)) == 0 else row)
        files.append(rows)
    return files


@settings(deadline=None)
@given(replicas_with_flipped_bits(), st.integers(8, 64), st.integers(1, 3))
def test_majority_is_the_brute_force(files, chunk, threads):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bytewise, "_CHUNK", chunk)
        patch.setattr(counting, "_WORTH", 0)
        patch.setattr(torch, "get_num_threads", lambda: threads)
        labels = majority(files)
    digests = [[None if row is None else row_digest(row, 3, 7) for row in rows] for rows in files]
    assert labels.tolist() == [by_brute_force(rows) for rows in files]
    assert digest(digests).tolist() == labels.tolist()


def test_large_rows_differ_wherever_the_bit_is():
    size = (1 << 20) + 3  # chunks do not divide it
    row = torch.randn(size)
    others = [row.clone() for _ in range(5)]
    for place, other in zip((0, 1 << 19, (1 << 19) - 1, size - 1), others[:4], strict=True):
        other.view(torch.int32)[place] ^= 1
    assert majority([[row, *others]]).tolist() == [[0, 1, 2, 3, 4, 0]]
    others[1].copy_(others[3])
    assert majority([[*others, row]]).tolist() == [[0, 1, 2, 1, 4, 4]]


def test_rows_that_begin_at_one_place_in_memory_need_not_be_equal():
    row = torch.arange(6.0)
    rows = [row[:3], row[:1].expand(3), row[::2], row[:3].clone(), row[::2].clone()]
    assert majority([rows]).tolist() == [[0, 1, 2, 0, 2]]


def test_rows_of_another_type_or_size_are_not_equal():
    rows = [torch.zeros(4), torch.zeros(2, dtype=torch.float64), torch.zeros(3), torch.zeros(4)]
    assert majority([rows]).tolist() == [[0, 1, 2, 0]]


def test_absent_replicas_count_nowhere():
    one, two, bad = (torch.tensor([value]) for value in (1.0, 2.0, torch.nan))
    replicas = [[None, one, None, two], [None] * 4, [bad, None, None, bad], [None, one, one, one]]
    labels = majority(replicas)
    assert labels.tolist() == [[-1, 1, -1, 3], [-1] * 4, [0, -1, -1, 0], [-1, 1, 1, 1]]
    finite = is_finite(replicas, labels)
    assert finite.tolist() == [
        [False, True, False, True], [False] * 4, [False] * 4, [False, True, True, True]
    ]  # fmt: skip
    assert winners(labels, finite, 3).tolist() == [-1, -1, -1, 1]
    assert winners(labels, finite, torch.tensor([1, 0, 2, 4])).tolist() == [1, -1, 0, -1]
    assert count_disagreements(labels) == 1 + 0 + 0 + 0


def test_labels_that_are_no_places_still_name_classes():
    """A vote of the user's may number its classes as it likes."""
    labels = torch.tensor([[7, 9, 9], [1, 0, 0]])
    replicas = [[torch.tensor([float(x)]) for x in (1, 2, 2)]] * 2
    finite = is_finite(replicas, labels)
    assert bool(finite.all())
    assert winners(labels, finite, 2).tolist() == [1, 1]


def test_digests_label_as_bytes_do():
    assert digest([[b"a", b"b", None, b"a"], [None, None, b"c", b"c"]]).tolist() == [
        [0, 1, ABSENT, 0], [ABSENT, ABSENT, 2, 2]
    ]  # fmt: skip


def test_a_vote_says_what_it_reads():
    @functools.wraps(digest)
    def wrapped(replicas):
        return digest(replicas)

    assert all(reads_digests(vote) for vote in (digest, partial(digest), wrapped, partial(wrapped)))
    assert not any(
        reads_digests(vote) for vote in (majority, tolerant, partial(tolerant, rtol=0.0), auto, len)
    )


def test_auto_becomes_the_vote_that_suits():
    assert resolve(partial(auto), is_local=True).func is majority
    assert resolve(partial(auto), is_local=False).func is digest
    kept = partial(tolerant, rtol=0.5)
    assert resolve(kept, is_local=False) is kept
    with pytest.raises(ValueError, match=r"rtol=-1.0 must be"):
        resolve(partial(tolerant, rtol=-1.0), is_local=True)
    assert auto([[torch.zeros(1), torch.zeros(1)]]).tolist() == [[0, 0]]


def near(*values, rtol=1e-5):
    """Labels of one file with rows (1, value)."""
    rows = [None if x is None else torch.tensor([1.0, x], dtype=torch.float64) for x in values]
    return tolerant([rows], rtol)[0].tolist()


def test_rows_within_the_tolerance_agree():
    assert near(0.0, 1e-6, 0.5) == [0, 0, 2]
    assert near(0.5, 1e-6, None, 0.0) == [0, 1, ABSENT, 1]
    assert near(0.0, 1.1e-5) == [0, 1]
    assert near(0.0, 1e-3, rtol=1e-2) == [0, 0]


def test_the_test_is_that_of_the_papers():
    """||(3, 4) - (3, 5)|| = 1; the larger norm is sqrt(34)."""
    rows = [torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0])]
    assert tolerant([rows], 1.01 / 34**0.5).tolist() == [[0, 0]]
    assert tolerant([rows], 0.99 / 34**0.5).tolist() == [[0, 1]]


def test_the_centre_has_a_majority_nearest_to_it():
    # 2.0 agrees with the most, and the three from 1.0 to 1.2 lie nearest together.
    assert near(2.0, 1.0, 1.1, 1.2, 6.0, rtol=0.75) == [2, 2, 2, 2, 4]


def test_equal_honest_rows_win_to_the_bit_against_any_minority_within_the_tolerance():
    honest = torch.randn(50, generator=torch.Generator().manual_seed(0))
    for seed, places in enumerate(itertools.combinations(range(5), 2)):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(50, generator=generator) * 1e-6
        rows = [honest + noise if place in places else honest.clone() for place in range(5)]
        labels = tolerant([rows])
        assert torch.equal(rows[int(winners(labels, is_finite([rows], labels), 3)[0])], honest)


@settings(deadline=None)
@given(st.permutations([0.0, 3e-6, 4e-6, 9e-6, 0.7]))
def test_the_winner_does_not_depend_on_the_order(values):
    labels = near(*values)
    assert values[max(labels, key=labels.count)] == 3e-6


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e-6, 1e-6), min_size=3, max_size=3),
    st.lists(st.floats(width=64), min_size=2, max_size=2),
    st.permutations(range(5)),
)
def test_a_minority_moves_the_winner_no_farther_than_the_honest_are_apart(honest, lies, order):
    rows = [torch.tensor([1.0, x], dtype=torch.float64) for x in [*honest, *lies]]
    rows = [rows[place] for place in order]
    labels = tolerant([rows])
    place = int(winners(labels, is_finite([rows], labels), 3)[0])
    assert place != NO_WINNER
    spread = max(honest) - min(honest)
    assert min(abs(float(rows[place][1]) - x) for x in honest) <= spread * (1 + 1e-9) + 1e-300


def test_rows_that_are_not_finite_agree_by_their_bytes_alone():
    assert near(torch.nan, torch.nan, 0.0, torch.inf, torch.inf, 1e-7) == [0, 0, 2, 3, 3, 2]
    nan, other = torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0 + 1e-7])
    assert tolerant([[nan, other]]).tolist() == [[0, 1]]


def test_without_tolerance_values_are_compared():
    tiny = torch.tensor([1.0, 1e-300], dtype=torch.float64)
    zero, minus = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, -0.0]).double()
    assert tolerant([[zero, minus, tiny]], 0.0).tolist() == [[0, 0, 2]]
    assert tolerant([[zero, minus, tiny]], 1e-12).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_largest_and_the_least_numbers_are_compared_too(dtype):
    info = torch.finfo(dtype)
    for size in (info.max, info.smallest_normal, 1.0):
        rows = [torch.tensor([size, share * size], dtype=dtype) for share in (1, 0.5, 1, -1, 0)]
        assert tolerant([rows], 0.1).tolist() == [[0, 1, 0, 3, 4]]
        assert tolerant([rows], 0.4)[0, 1] == 0


@pytest.mark.parametrize("rtol", [-1e-9, -torch.inf, torch.nan, torch.inf])
def test_a_tolerance_is_a_number_from_0(rtol):
    with pytest.raises(ValueError, match=r"rtol=.* must be a number from 0"):
        tolerant([[torch.zeros(2)]], rtol)


def test_no_files_have_no_labels():
    for vote in (majority, digest, tolerant):
        assert vote([]).shape == (0, 0)
