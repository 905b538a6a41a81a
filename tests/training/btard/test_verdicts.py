"""Verdicts and duties: pure functions of what was posted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzshield_exp.training.btard import lottery
from byzshield_exp.training.btard.postings import Phase, blank, form
from byzshield_exp.training.btard.verdicts import (
    Ban,
    Reason,
    Recomputed,
    accused,
    eliminated,
    false_emptiness,
    false_secrets,
    outvoted,
    unexplained,
)

PEERS = 9
PAIRS = st.sets(st.tuples(st.integers(0, PEERS - 1), st.integers(0, PEERS - 1)), max_size=40)
TRUE, LIED = Recomputed(True), Recomputed(True, wrong_sums=(1,), wrong_norms=(2,))


def pair(one, other):
    return [Ban(one, Reason.ELIMINATED, other), Ban(other, Reason.ELIMINATED, one)]


def posted(phase, **fields):
    posting = blank(form(phase, PEERS, PEERS, 1))
    for name, value in fields.items():
        posting[name] = value
    return posting


def test_eliminated_by_hand():
    live = range(PEERS)
    assert eliminated([(5, 2), (3, 7), (2, 5)], live) == [*pair(2, 5), *pair(3, 7)]
    assert eliminated([(1, 2), (1, 3), (4, 3)], live) == [*pair(1, 2), *pair(4, 3)]
    assert eliminated([(1, 1), (8, 3)], range(8)) == []  # nobody else is there
    by_five = [(one, 8) for one in range(5)]
    assert eliminated([*by_five, (8, 0)], live) == [Ban(8, Reason.ACCUSED_BY_MOST)]
    assert eliminated(by_five[1:], live) == pair(1, 8)  # four of nine are not most


def test_a_process_that_dies_takes_nobody_along():
    """Its peers send nothing to anybody; they are silent or everybody complains of them."""
    dead, others = [0, 4, 5], [1, 2, 3, 6, 7, 8]
    complaints = [(one, other) for one in others for other in dead]
    assert eliminated(complaints, others) == []
    found = eliminated(complaints, range(PEERS))
    assert found == [Ban(peer, Reason.ACCUSED_BY_MOST) for peer in dead]


@given(PAIRS)
@settings(max_examples=200, deadline=None)
def test_each_is_eliminated_once_and_no_complaint_is_left(complaints):
    bans = eliminated(sorted(complaints), range(PEERS))
    assert eliminated(sorted(complaints, reverse=True), range(PEERS)) == bans
    gone = [ban.peer for ban in bans]
    assert len(set(gone)) == len(gone)
    for ban in bans:
        count = sum(other == ban.peer != one for one, other in complaints)
        assert (ban.reason is Reason.ACCUSED_BY_MOST) == (2 * count > PEERS)
        if ban.reason is Reason.ELIMINATED:
            assert Ban(ban.by, Reason.ELIMINATED, ban.peer) in bans
            assert {(ban.peer, ban.by), (ban.by, ban.peer)} & complaints
    assert all(one == other or one in gone or other in gone for one, other in complaints)


@given(PAIRS, st.sets(st.integers(0, PEERS - 1), max_size=(PEERS - 1) // 2))
@settings(max_examples=200, deadline=None)
def test_elimination_takes_no_more_honest_peers_than_liars(complaints, liars):
    possible = [(one, other) for one, other in complaints if one in liars or other in liars]
    honest = [ban for ban in eliminated(possible, range(PEERS)) if ban.peer not in liars]
    assert all(ban.reason is Reason.ELIMINATED and ban.by in liars for ban in honest)


def test_accused_by_hand():
    active = [3, 4, 5, 6]
    assert accused([(7, 4)], {4: TRUE}, active) == [Ban(7, Reason.FALSE_ACCUSATION, 4)]
    forged = {4: Recomputed(False)}
    assert accused([(7, 4), (8, 4)], forged, active) == [Ban(4, Reason.WRONG_GRADIENT, 7)]
    covered = [Ban(4, Reason.COVERED, 6), Ban(5, Reason.COVERED, 6)]
    lied = Ban(6, Reason.WRONG_SUM, 7)
    assert accused([(7, 6)], {6: LIED}, active) == [lied, *covered]
    assert accused([(7, 6)], {6: LIED}, active, spoken=[(5, 6)]) == [lied, covered[0]]
    itself = Recomputed(True, wrong_norms=(3,))  # in the part that it aggregates
    assert accused([(7, 6)], {6: itself}, active) == [Ban(6, Reason.WRONG_NORM, 7)]
    both = accused([(7, 4), (8, 5)], {4: TRUE, 5: Recomputed(False)}, active)
    assert both == [Ban(7, Reason.FALSE_ACCUSATION, 4), Ban(5, Reason.WRONG_GRADIENT, 8)]


def test_whose_sums_are_not_balanced_must_accuse():
    assert unexplained([0, 2], [3, 4, 5], [(5, 4)]) == [0]
    assert unexplained([], [3, 4, 5], []) == []


def test_other_parameters_than_most_have():
    digests = {peer: posted(Phase.COMMIT, params=peer == 2) for peer in range(4)}
    assert outvoted(digests, "params", range(5)) == [Ban(2, Reason.OTHER_PARAMETERS)]
    assert outvoted({}, "params", range(5)) == []


def test_secrets_must_be_those_of_this_attempt():
    step, attempt, peers = 3, 1, [0, 1, 2, 4]
    secrets = {peer: lottery.secret(7, step, attempt, peer) for peer in peers}
    committed = {}
    for peer, pieces in secrets.items():
        digest = lottery.commitment(step, attempt, peer, pieces)
        committed[peer] = posted(Phase.COMMIT, commitment=np.frombuffer(digest, np.uint8))
    secrets[1] = lottery.secret(7, step, 0, 1)  # of the attempt before
    opened = {
        peer: posted(Phase.REVEAL, secret=list(pieces[0]), salt=list(pieces[1]))
        for peer, pieces in secrets.items()
        if peer != 4
    }
    found = false_secrets(committed, opened, peers, step, attempt)
    assert found == [Ban(4, Reason.ABSENT), Ban(1, Reason.FALSE_SECRET)]


@pytest.mark.parametrize("says", [False, True])
def test_an_empty_part_is_known_to_all(says):
    aggregates = {peer: posted(Phase.AGGREGATE, finite=says) for peer in (1, 2)}
    counted = np.array([[True, False], [False, False]])
    (ban,) = false_emptiness(aggregates, [1, 2], counted)
    assert ban == Ban(2 if says else 1, Reason.WRONG_AGGREGATE)


@given(
    st.binary(min_size=32, max_size=32),
    st.sets(st.integers(0, 20), min_size=1),
    st.data(),
    st.integers(0, 12),
)
@settings(max_examples=200, deadline=None)
def test_duties_are_disjoint_and_targets_computed(drawn, live, data, count):
    live = sorted(live)
    active = data.draw(st.sets(st.sampled_from(live)).map(sorted))
    found = lottery.duties(drawn, active, live, count)
    named = [peer for duty in found for peer in duty]
    assert len(set(named)) == len(named) == 2 * min(count, (len(live) - 1) // 2, len(active))
    assert {target for _, target in found} <= set(active)
    assert {validator for validator, _ in found} <= set(live)
    assert lottery.duties(drawn, active, live, count) == found
