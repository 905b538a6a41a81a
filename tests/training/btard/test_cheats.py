"""Each cheat: all of the guilty, and only they, are banned within the step."""

import pytest

FIXED = "adversary=explicit", "adversary.workers=[2,5]", "attack=none"

# Cheat, and the reasons for which the two liars are banned; whom else ELIMINATE takes.
GUILTY = {
    "wrong_aggregate": ({"wrong_aggregate"}, 0),
    "wrong_aggregate cheat.wrong_aggregate.shift=1e25 protocol.delta_max=inf": (
        {"wrong_aggregate"},
        0,
    ),
    "covered_aggregate cheat.covered_aggregate.shift=100": ({"wrong_aggregate", "wrong_sum"}, 0),
    "wrong_sum": ({"wrong_sum", "wrong_aggregate"}, 0),
    "wrong_norm": ({"wrong_norm"}, 0),
    "wrong_part cheat.wrong_part.victims=5": ({"accused_by_most"}, 0),
    "wrong_part": ({"eliminated"}, 2),
    "withhold": ({"eliminated"}, 2),
    "no_commit": ({"absent"}, 0),
    "equivocate": ({"eliminated"}, 2),
    "mprng_abort": ({"absent"}, 0),
    "mprng_abort cheat.mprng_abort.is_silent=false": ({"false_secret"}, 0),
    "false_accusation": ({"false_accusation"}, 0),
    "false_complaint": ({"eliminated"}, 2),
}


@pytest.mark.parametrize("cheat", GUILTY)
def test_the_guilty_are_banned_within_the_step(peers, cheat):
    reasons, honest = GUILTY[cheat]
    summary, records = peers(f"cheat={cheat.split()[0]}", *cheat.split()[1:], *FIXED, "steps=2")
    liars = [ban for ban in summary["bans"] if ban["peer"] in (2, 5)]
    assert sorted(ban["peer"] for ban in liars) == [2, 5]
    assert {ban["reason"] for ban in liars} <= reasons
    others = [ban for ban in summary["bans"] if ban["peer"] not in (2, 5)]
    assert [ban["reason"] for ban in others] == honest * ["eliminated"]
    assert {ban["step"] for ban in summary["bans"]} == {1}
    assert records[1]["attempts"] == 1


@pytest.mark.slow
def test_validators_find_who_covers_a_small_shift(peers):
    """V2 sees nothing of it, and V3 has its bound far above."""
    options = "cheat=covered_aggregate", "cheat.covered_aggregate.shift=0.5"
    summary, records = peers(*options, *FIXED, "protocol.delta_max=inf", "steps=40")
    assert summary["banned"] == [2, 5]
    assert {ban["reason"] for ban in summary["bans"]} <= {"wrong_sum", "covered"}
    assert summary["bans"][0]["step"] > 1
    assert sum(record["trials"] for record in records) == 0
