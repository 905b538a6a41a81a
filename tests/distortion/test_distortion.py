import json
from itertools import combinations
from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp.assignments import (
    Assignment,
    affine_plane,
    baseline,
    fractional_repetition,
    mols,
    projective_plane,
    ramanujan_one,
    ramanujan_two,
    random,
    steiner,
    subsets,
)
from byzshield_exp.distortion import bounds, cache, count_distorted, worst_case
from byzshield_exp.distortion.papers import TABLES
from byzshield_exp.distortion.worst_case import _Search, _verified


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "cache"))


def won(assignment, workers):
    """The independent checker: file by file, more than half of the holders."""
    holders = assignment.workers_of_file.tolist()
    return sum(2 * len(set(of_file) & set(workers)) > len(of_file) for of_file in holders)


def brute_force(assignment, q):
    return max(won(assignment, s) for s in combinations(range(assignment.num_workers), q))


GOLDEN = [
    pytest.param(table, q, row[0], id=f"{table.title}-q={q}")
    for table in TABLES
    for q, row in table.rows.items()
]


@pytest.mark.parametrize(("table", "q", "count"), GOLDEN)
def test_the_papers_tables(table, q, count):
    assignment = table.make()
    worst = worst_case(assignment, q)
    assert worst.exact
    assert worst.count == worst.upper_bound == won(assignment, worst.workers) == count
    assert len(set(worst.workers)) == q
    assert bounds.lower_bound(assignment, q) <= count <= worst.root_bound


@pytest.mark.parametrize(
    ("q", "workers"), [(2, (0, 5)), (3, (0, 5, 11)), (4, (0, 1, 5, 11)), (5, (0, 1, 5, 6, 13))]
)
def test_the_worst_set_is_the_one_that_the_research_code_types_in(q, workers):
    assert worst_case(mols(15, 3), q).workers == workers


def test_ramanujan_one_is_mols_under_other_names():
    for q in range(2, 8):
        assert worst_case(ramanujan_one(15, 3), q).count == worst_case(mols(15, 3), q).count


def test_doubled_columns_double_the_damage():
    for q in (3, 4, 5, 6):
        once, twice = ramanujan_two(25, 5), ramanujan_two(25, 5, m=10)
        assert worst_case(twice, q).count == 2 * worst_case(once, q).count


@pytest.mark.slow
def test_a_net_of_order_eight_over_its_field():
    """AP Table V used squares modulo 8; over GF(8), r = 3, c = T - 2 n_3 holds to q = 11."""
    pair = [bounds.pair_bound(mols(24, 3), q) for q in range(2, 12)]
    assert pair == [q * q // 3 for q in range(2, 12)]
    assert [worst_case(mols(24, 3), q).count for q in range(2, 12)] == pair


def test_closed_forms():
    assert [worst_case(baseline(7), q).count for q in range(8)] == list(range(8))
    frc = fractional_repetition(15, 3)
    assert [worst_case(frc, q).count for q in range(8)] == [q // 2 for q in range(8)]
    for q in range(2, 8):
        worst = worst_case(subsets(15, 3), q)
        assert worst.count == round(bounds.random_share(subsets(15, 3), q) * 455)


def by_search(assignment, q, incumbent=None):
    """The compiled search, also where all sets could be looked at."""
    from time import perf_counter

    search = _Search(assignment, q)
    return search.run(60.0) if incumbent is None else search.finish(incumbent, perf_counter(), 60.0)


SMALL = {
    "mols": mols(15, 3), "even r": mols(10, 2), "groups": fractional_repetition(12, 3),
    "twins": fractional_repetition(12, 4), "affine plane": affine_plane(9, 3),
    "fano": steiner(7), "projective plane": projective_plane(13, 4), "subsets": subsets(7, 3),
    "baseline": baseline(6), "random": random(11, 4, load=4),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_the_search_finds_the_first_worst_set(name):
    assignment = SMALL[name]
    for q in range(1, assignment.num_workers + 1):
        worst, plain = by_search(assignment, q), worst_case(assignment, q)
        assert worst.exact
        assert (worst.count, worst.workers) == (plain.count, plain.workers)
        first = next(
            s
            for s in combinations(range(assignment.num_workers), q)
            if won(assignment, s) == plain.count
        )
        assert worst.workers == first


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10**6), st.data())
def test_the_search_equals_brute_force_on_random_placements(workers, seed, data):
    replication = data.draw(st.integers(1, workers))
    step = replication // gcd(workers, replication)  # loads that make whole files
    load = step * data.draw(st.integers(1, max(1, 6 // step)))
    assignment = random(workers, replication, load, seed)
    q = data.draw(st.integers(1, workers))
    exact = brute_force(assignment, q)
    worst = by_search(assignment, q)
    assert worst.exact
    assert worst.count == exact == won(assignment, worst.workers)
    assert bounds.lower_bound(assignment, q) <= exact <= bounds.upper_bound(assignment, q)
    for bound in (bounds.gamma, bounds.pair_bound, bounds.incidence_bound):
        value = bound(assignment, q)
        assert value is None or exact <= value + 1e-9


@pytest.mark.parametrize("q", [4, 6, 7])
def test_the_answer_does_not_depend_on_the_incumbent(q):
    assignment = mols(15, 3)
    right = worst_case(assignment, q)
    assert right.count > 0
    weaker = next(
        list(s) for s in combinations(range(15), q) if won(assignment, s) == right.count - 1
    )
    nothing = min(combinations(range(15), q), key=lambda s: won(assignment, s))
    for incumbent in (weaker, list(nothing), list(right.workers)):
        found = by_search(assignment, q, incumbent)
        assert (found.count, found.workers, found.exact) == (right.count, right.workers, True)


def test_the_answer_does_not_depend_on_known_symmetry():
    with_symmetry = mols(35, 5)
    without = Assignment(with_symmetry.files_of_worker)
    for q in (5, 8):
        one, two = worst_case(with_symmetry, q), by_search(without, q)
        assert (one.count, one.workers) == (two.count, two.workers)
        assert one.nodes < two.nodes


def test_a_false_symmetry_is_refused():
    swap = np.arange(15)
    swap[[0, 7]] = 7, 0
    claimed = Assignment(mols(15, 3).files_of_worker, automorphisms=lambda: swap[None])
    with pytest.raises(ValueError, match="does not map files onto files"):
        _verified(claimed)


def test_past_the_time_limit_the_interval_is_proven(tmp_path):
    assignment = mols(63, 7)  # this q takes hours
    hurried = worst_case(assignment, 20, 0.5)
    assert not hurried.exact
    assert hurried.count < hurried.upper_bound <= hurried.root_bound
    assert won(assignment, hurried.workers) == hurried.count
    assert not entry(assignment, 20).exists()  # only the result of a whole search is kept


def test_a_search_that_is_stopped_at_once_still_bounds_the_exact_value():
    assignment = mols(35, 5)
    exact = worst_case(assignment, 13)
    search = _Search(assignment, 13)
    search.stop[0] = 1
    ended = search.finish(list(range(13)), 0.0, 1e9)
    assert ended.count <= exact.count <= ended.upper_bound
    assert not search.finished


def test_many_holders_are_counted():
    assert worst_case(fractional_repetition(200, 200), 200).count == 1
    assert worst_case(fractional_repetition(400, 200), 399).count == 2


@pytest.mark.parametrize("q", [-1, 16])
def test_q_out_of_range_is_refused(q):
    with pytest.raises(ValueError, match=f"q={q} must lie between 0 and K=15"):
        worst_case(mols(15, 3), q)


def test_a_time_limit_must_be_positive():
    with pytest.raises(ValueError, match=r"time_limit=0\.0"):
        worst_case(mols(15, 3), 3, time_limit=0.0)


def test_a_tie_is_not_won():
    assert worst_case(fractional_repetition(4, 2), 1).count == 0
    assert worst_case(fractional_repetition(4, 2), 2).count == 1


# The cache.


def entry(assignment, q):
    return cache.entry_path(assignment, q)


def test_results_are_kept_and_read():
    assignment = mols(35, 5)
    first = worst_case(assignment, 6)
    assert entry(assignment, 6).exists()
    assert worst_case(assignment, 6) == first  # the seconds too: it was not searched again
    shuffled = Assignment(assignment.files_of_worker.flip(1))  # the same placement
    assert worst_case(shuffled, 6) == first
    assert entry(assignment, 7) != entry(assignment, 6)
    assert entry(mols(40, 5), 6) != entry(assignment, 6)


@pytest.mark.parametrize(
    "damage",
    [
        "garbage",
        "count",
        "resealed",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("cut", "workers", "lower", "range", "keys")
        ),
    ],
)
def test_a_damaged_entry_is_searched_again(damage):
    assignment = mols(35, 5)
    right = worst_case(assignment, 6)
    path = entry(assignment, 6)
    stored = json.loads(path.read_text())
    if damage == "count":
        stored["content"]["count"] = stored["content"]["upper_bound"] = 3
    if damage == "workers":
        stored["content"]["workers"] = [0, 1, 2, 3, 4, 5]
    if damage == "resealed":  # a right seal over a set that does not win what it says
        stored["content"]["workers"] = [0, 1, 2, 3, 4, 5]
        stored["sha256"] = cache._digest(stored["content"])
    if damage == "lower":  # a right seal over a set that wins less, called the worst
        stored["content"]["workers"] = [0, 1, 2, 3, 4, 5]
        stored["content"]["count"] = stored["content"]["upper_bound"] = 0
        stored["sha256"] = cache._digest(stored["content"])
    if damage == "range":
        stored["content"]["workers"] = [0, 1, 7, 10, 20, 99]
        stored["sha256"] = cache._digest(stored["content"])
    if damage == "keys":
        stored["content"]["more"] = 1
        stored["sha256"] = cache._digest(stored["content"])
    text = json.dumps(stored)
    path.write_text({"garbage": "no json", "cut": text[:-9]}.get(damage, text))
    again = worst_case(assignment, 6)
    assert (again.count, again.workers) == (right.count, right.workers)
    assert json.loads(path.read_text())["content"]["workers"] == list(right.workers)


def test_a_cache_that_cannot_be_written_costs_only_time(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "file" / "below"))
    assert worst_case(mols(35, 5), 6).count == 4


# Bounds.


def test_gamma_is_the_papers():
    for table in TABLES:
        for q, (_, _, _, _, printed) in table.rows.items():
            assert bounds.gamma(table.make(), q) == pytest.approx(printed, abs=0.0051), (table, q)


@pytest.mark.slow
def test_the_pair_bound_is_turans():
    exact = [worst_case(mols(35, 5), q).count for q in range(3, 14)]
    pairs = [bounds.pair_bound(mols(35, 5), q) for q in range(3, 14)]
    assert pairs == [1, 2, 3, 4, 6, 8, 10, 13, 16, 19, 22]
    assert all(a <= b for a, b in zip(exact, pairs, strict=True))


def test_the_random_share_is_the_average_over_all_sets():
    for assignment in (mols(10, 2), steiner(7), random(8, 4, load=3)):
        for q in (1, 2, 3, 5):
            sets = list(combinations(range(assignment.num_workers), q))
            average = sum(won(assignment, s) for s in sets) / len(sets) / assignment.num_files
            assert bounds.random_share(assignment, q) == pytest.approx(average)


def test_the_random_share_is_the_references():
    shares = [bounds.random_share(mols(15, 3), q) for q in range(2, 8)]
    assert shares == pytest.approx([0.029, 0.081, 0.154, 0.242, 0.341, 0.446], abs=6e-4)


def test_count_distorted_is_the_checkers_count():
    assignment = affine_plane(9, 3)
    for q in (1, 3):
        for workers in combinations(range(9), q):
            assert count_distorted(assignment, workers) == won(assignment, workers)
