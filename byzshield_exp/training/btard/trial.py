"""CHECKAVERAGING: all show their rows of a part, and all clip them again.

Done where V3 finds a part suspicious, and where V2 fails and the aggregator accuses nobody: as a
rule it is guilty, but clipping that ended before it converged fails V2 as well.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard import sums
from byzshield_exp.training.btard.attempt import Attempt
from byzshield_exp.training.btard.posted import Posted
from byzshield_exp.training.btard.postings import (
    Phase,
    Posting,
    aggregate_digest,
    evidence_form,
    part_digest,
)
from byzshield_exp.training.btard.verdicts import Ban, Reason


def check_averaging(attempt: Attempt, parts: Sequence[int]) -> list[Ban]:
    """Try parts in public; the evidence is posted, so that all judge the same bytes."""
    posted = attempt.posted
    if not parts or posted is None:
        return []
    attempt.counts.trials += len(parts)
    sizes = [attempt.sizes[part] for part in parts]

    def show(peer: int, posting: Posting) -> None:
        row = attempt.gradients.sent(peer)
        posting["row"] = torch.cat([row[attempt.parts[part]] for part in parts]).numpy()

    said = attempt.round(Phase.EVIDENCE, attempt.active, show, evidence_form(sum(sizes)))
    shown = {
        peer: torch.from_numpy(np.array(posting["row"])).split(sizes)
        for peer, posting in said.items()
    }
    bans: dict[int, Ban] = {}
    for place, part in enumerate(parts):
        pieces = {peer: row[place] for peer, row in shown.items()}
        found = _without_evidence(posted, part, pieces) or _judged(attempt, posted, part, pieces)
        for ban in found:
            bans.setdefault(ban.peer, ban)
    return list(bans.values())


def _without_evidence(posted: Posted, part: int, pieces: Mapping[int, Tensor]) -> list[Ban]:
    """Those who show no row, or another one than they had committed to."""
    bans = []
    for place, peer in enumerate(posted.active):
        if peer in pieces:
            flag = bool(posted.finite[place, part])
            digest = part_digest(posted.step, posted.attempt, peer, part, pieces[peer], flag)
            is_shown = digest == posted.digests[place, part].tobytes()
            if is_shown and (is_finite(pieces[peer]) or not flag):
                continue
        bans.append(Ban(peer, Reason.NO_EVIDENCE))
    return bans


def _judged(attempt: Attempt, posted: Posted, part: int, pieces: Mapping[int, Tensor]) -> list[Ban]:
    """The aggregator, if it clips otherwise, and those who lied about their numbers."""
    aggregator, bans = posted.active[part], []
    places = [place for place in range(len(posted.active)) if posted.finite[place, part]]
    rows = [pieces[posted.active[place]] for place in places]
    point = attempt.rules.aggregate(torch.stack(rows)).point
    digest = aggregate_digest(posted.step, posted.attempt, aggregator, point, is_finite(point))
    if digest != attempt.aggregates[aggregator]["digest"].tobytes():
        bans.append(Ban(aggregator, Reason.WRONG_AGGREGATE))
    middle, drawn = posted.aggregate[posted.parts[part]], posted.directions(part)
    s, nu = sums.numbers(rows, [True] * len(rows), middle, drawn, posted.tau)
    for at, place in enumerate(places):
        peer = posted.active[place]
        if s[at].tobytes() != posted.s[place, part].tobytes():
            bans.append(Ban(peer, Reason.WRONG_SUM))
        elif nu[at].tobytes() != posted.nu[place, part].tobytes():
            bans.append(Ban(peer, Reason.WRONG_NORM))
        else:
            continue
        if peer != aggregator:
            bans.append(Ban(aggregator, Reason.COVERED, peer))
    return bans
