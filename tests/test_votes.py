import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byzshield_exp.votes import NO_WINNER, count_disagreements, is_finite, majority, winners


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
