"""The rounds COMMIT and REVEAL: rows are committed to, and a random number is drawn."""

import numpy as np

from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard import lottery, verdicts
from byzshield_exp.training.btard.attempt import Attempt
from byzshield_exp.training.btard.postings import Phase, Posting, part_digest
from byzshield_exp.training.btard.verdicts import Ban


def commit(attempt: Attempt) -> list[Ban]:
    """Commit to rows and secrets; judge what validators found in the step before."""
    said = attempt.round(
        Phase.COMMIT, attempt.live, lambda peer, posting: _write(attempt, peer, posting)
    )
    attempt.committed = said
    bans = verdicts.absent(attempt.live, said)
    if not attempt.rules.verifies:
        return bans
    bans += verdicts.outvoted(said, "params", attempt.live)
    accusing = [
        (validator, target)
        for validator, target in attempt.roster.duties
        if validator in said and said[validator]["accuses"]
    ]
    if attempt.number == 0 and accusing:
        attempt.counts.accusations += len(accusing)
        bans += attempt.judge(accusing)
    return bans


def reveal(attempt: Attempt) -> list[Ban]:
    """Open the secrets."""
    said = attempt.round(
        Phase.REVEAL, attempt.live, lambda peer, posting: _open(attempt, peer, posting)
    )
    attempt.drawn = lottery.combined(posting["secret"].tobytes() for posting in said.values())
    return verdicts.false_secrets(
        attempt.committed, said, attempt.live, attempt.step, attempt.number
    )


def _write(attempt: Attempt, peer: int, posting: Posting) -> None:
    if attempt.is_active(peer):
        posting["loss"] = attempt.gradients.loss(peer)
    if not attempt.rules.verifies:
        return
    step, number = attempt.step, attempt.number
    posting["accuses"] = attempt.accusing.get(peer, False)
    posting["params"] = np.frombuffer(attempt.params, dtype=np.uint8)
    opened = lottery.secret(attempt.rules.seed, step, number, peer)
    committed = lottery.commitment(step, number, peer, opened)
    posting["commitment"] = np.frombuffer(committed, dtype=np.uint8)
    if not attempt.is_active(peer):
        return
    row = attempt.gradients.sent(peer)
    for part, where in enumerate(attempt.parts):
        posting["finite"][part] = flag = is_finite(row[where])
        digest = part_digest(step, number, peer, part, row[where], flag)
        posting["digests"][part] = np.frombuffer(digest, dtype=np.uint8)


def _open(attempt: Attempt, peer: int, posting: Posting) -> None:
    opened = lottery.secret(attempt.rules.seed, attempt.step, attempt.number, peer)
    posting["secret"], posting["salt"] = (np.frombuffer(it, dtype=np.uint8) for it in opened)
