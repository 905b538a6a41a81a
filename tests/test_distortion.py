from itertools import combinations

import pytest

from byzshield_exp.assignments import baseline, fractional_repetition, mols, ramanujan_two
from byzshield_exp.distortion import count_distorted, worst_case

TABLE_3 = {1: 0, 2: 1, 3: 3, 4: 5, 5: 8, 6: 12, 7: 14}  # K=15, MOLS
TABLE_4 = {3: 1, 4: 1, 5: 2, 6: 4}  # K=25, Ramanujan case 2


@pytest.mark.parametrize(("q", "count"), TABLE_3.items())
def test_worst_case_is_table_3_of_the_paper(q, count):
    assert worst_case(mols(15, 3), q).count == count


@pytest.mark.parametrize(("q", "count"), TABLE_4.items())
def test_worst_case_is_table_4_of_the_paper(q, count):
    assert worst_case(ramanujan_two(25, 5), q).count == count


@pytest.mark.parametrize(
    ("q", "workers"), [(2, (0, 5)), (3, (0, 5, 11)), (4, (0, 1, 5, 11)), (5, (0, 1, 5, 6, 13))]
)
def test_the_worst_set_is_the_one_that_the_research_code_types_in(q, workers):
    assert worst_case(mols(15, 3), q).workers == workers


@pytest.mark.parametrize("assignment", [mols(10, 2), mols(15, 3), fractional_repetition(9, 3)])
@pytest.mark.parametrize("q", [0, 1, 2, 4])
def test_no_other_set_is_worse(assignment, q):
    def won(workers):  # counted anew, file by file
        holders = assignment.workers_of_file.tolist()
        half = assignment.replication / 2
        return sum(len(set(of_file) & set(workers)) > half for of_file in holders)

    worst = worst_case(assignment, q)
    assert won(worst.workers) == worst.count == count_distorted(assignment, worst.workers)
    assert worst.count == max(won(s) for s in combinations(range(assignment.num_workers), q))


def test_closed_forms():
    assert [worst_case(baseline(7), q).count for q in range(8)] == list(range(8))
    frc = fractional_repetition(15, 3)
    assert [worst_case(frc, q).count for q in range(8)] == [q // 2 for q in range(8)]


def test_a_tie_is_not_won():
    assert worst_case(fractional_repetition(4, 2), 1).count == 0
    assert worst_case(fractional_repetition(4, 2), 2).count == 1


@pytest.mark.parametrize("q", [-1, 16])
def test_q_out_of_range_is_refused(q):
    with pytest.raises(ValueError, match=f"q={q} must lie between 0 and K=15"):
        worst_case(mols(15, 3), q)


def test_too_many_sets_are_refused():
    with pytest.raises(ValueError, match="5,000,000"):
        worst_case(mols(35, 5), 13)
