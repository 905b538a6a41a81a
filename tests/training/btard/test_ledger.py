"""Who is banned once, who is gone, and what a checkpoint keeps of it."""

from byzshield_exp.training.btard.ledger import Ledger
from byzshield_exp.training.btard.verdicts import Ban, Reason


def test_a_peer_is_banned_once_and_gone_where_bans_drop():
    ledger = Ledger(5, drops=True)
    bans = [Ban(3, Reason.WRONG_SUM, 1), Ban(3, Reason.COVERED, 2)]
    assert ledger.ban(bans, 4) == bans[:1]
    assert ledger.ban(bans, 5) == []
    assert (ledger.banned, ledger.gone, ledger.roster.live) == ({3}, {3}, (0, 1, 2, 4))


def test_a_peer_that_took_a_place_goes_when_it_is_absent_or_nothing_else_helps():
    ledger = Ledger(5, drops=False)
    pair = [Ban(1, Reason.ELIMINATED, 2), Ban(2, Reason.ELIMINATED, 1)]
    assert ledger.ban(pair, 0) == pair
    assert ledger.gone == set()
    liar = [Ban(1, Reason.ELIMINATED, 3), Ban(3, Reason.ELIMINATED, 1)]
    assert ledger.ban(liar, 1) == liar[1:]
    assert ledger.gone == set()
    assert ledger.ban(pair, 2) == pair  # a broken connection between them
    assert ledger.gone == {1, 2}
    assert ledger.ban([Ban(3, Reason.ABSENT)], 3)
    assert ledger.gone == {1, 2, 3}


def test_a_checkpoint_keeps_all_of_it():
    ledger, again, state = Ledger(4, drops=True), Ledger(4, drops=True), {}
    ledger.ban([Ban(2, Reason.FALSE_SECRET)], 7)
    ledger.duties, ledger.attacks[2] = ((0, 1),), 3
    ledger.save(state)
    again.load(state)
    assert (again.facts(), again.duties, again.gone) == (ledger.facts(), ((0, 1),), {2})
    assert again.facts()["bans"] == [{"peer": 2, "step": 8, "reason": "false_secret", "by": None}]
