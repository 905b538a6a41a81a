"""The order of an attempt's phases."""

from byzshield_exp.training.btard.attempt import Attempt
from byzshield_exp.training.btard.commitments import commit, reveal
from byzshield_exp.training.btard.exchange import clip, fetch_again, gather, scatter
from byzshield_exp.training.btard.trial import check_averaging
from byzshield_exp.training.btard.verdicts import Ban
from byzshield_exp.training.btard.verification import sum_up, verify


def run(attempt: Attempt) -> list[Ban]:
    """Go through the phases, up to the first in which somebody is banned.

    If nobody is, the attempt has the aggregate that all honest peers have, and what was posted.
    """
    watch, verifies = attempt.watch, attempt.rules.verifies
    with watch("commit"):
        bans = commit(attempt)
    if bans:
        return bans
    with watch("scatter"):
        scatter(attempt)
    with watch("clip"):
        bans = clip(attempt)
    if verifies and not bans:
        with watch("reveal"):
            bans = reveal(attempt)
    if bans:
        return bans
    with watch("gather"):
        held = gather(attempt)
    with watch("sums"):
        bans = sum_up(attempt)
    if bans:
        return bans
    with watch("gather"):
        fetch_again(attempt, held)
    held.clear()  # as large as the rows of this process's peers, as what they received
    attempt.received.clear()
    if not verifies:
        return []
    with watch("verdict"):
        bans, parts = verify(attempt)
    if bans:
        return bans
    with watch("trial"):
        return check_averaging(attempt, parts)
