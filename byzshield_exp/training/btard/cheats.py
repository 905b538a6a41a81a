"""Ways to break the protocol: each alters what a liar posts or sends, and nothing else."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.training.btard import lottery, sums
from byzshield_exp.training.btard.cheating import Move
from byzshield_exp.training.btard.postings import Phase


def wrong_aggregate(move: Move, shift: float = 1.0) -> Any:
    """Aggregate wrongly: add a random vector to the centre of its part.

    Args:
        move: what the liar is about to do.
        shift: length of the vector, in median distances of the part's rows to their centre.

    Answered by: V2.
    """
    return _shifted(move, shift) if move.phase is Phase.CLIP else move.content


def covered_aggregate(move: Move, shift: float = 1.0) -> Any:
    """Aggregate wrongly, and let the colluders' sums make up for it: V2 sees nothing.

    Args:
        move: what the liar is about to do.
        shift: as of ``wrong_aggregate``.

    Answered by: V3 above ``delta_max``, validators below.
    """
    if move.phase is Phase.CLIP:
        return _shifted(move, shift)
    if move.phase is Phase.SUMS and move.peer in move.attempt.roster.place_of:
        for aggregator in (peer for peer in move.attempt.active if peer in move.liars):
            _cover(move, aggregator)
    return move.content


def wrong_sum(move: Move, shift: float = 1.0) -> Any:
    """Lie about its sums in every part.

    Args:
        move: what the liar is about to do.
        shift: added to each, in units of its distance.

    Answered by: V1; where the aggregator covers it, V2 or validators.
    """
    if move.phase is Phase.SUMS and move.peer in move.attempt.roster.place_of:
        move.content["s"] += shift * (1 + move.content["nu"])[:, None]
    return move.content


def wrong_norm(move: Move, factor: float = 2.0) -> Any:
    """Lie about its distances in every part.

    Args:
        move: what the liar is about to do.
        factor: each is multiplied by it.

    Answered by: V1; where the aggregator covers it, validators.
    """
    if move.phase is Phase.SUMS and move.peer in move.attempt.roster.place_of:
        move.content["nu"] = factor * move.content["nu"] + 1
    return move.content


def wrong_part(move: Move, victims: int = 1) -> Any:
    """Send other bytes of its row than it had committed to.

    Args:
        move: what the liar is about to do.
        victims: honest peers who get them, the first ones, at least 1.

    Answered by: ELIMINATE.
    """
    is_sent = move.phase is Phase.SCATTER and _is_victim(move, victims)
    return move.content + 1 if is_sent else move.content


def withhold(move: Move, victims: int = 1) -> Any:
    """Send nothing of its row.

    Args:
        move: what the liar is about to do.
        victims: honest peers who get nothing, the first ones, at least 1.

    Answered by: ELIMINATE.
    """
    return None if move.phase is Phase.SCATTER and _is_victim(move, victims) else move.content


def equivocate(move: Move, victims: int = 1, observers: bool = False) -> Any:
    """Tell some peers another aggregate than the others.

    Args:
        move: what the liar is about to do.
        victims: honest peers who get it, the first ones, at least 0.
        observers: whether processes without peers get it too.

    Answered by: the commitment to the aggregate, and ELIMINATE.
    """
    if move.phase is not Phase.GATHER or move.receiver is None:
        return move.content
    is_observer = move.receiver < 0 and observers
    return move.content + 1 if is_observer or _is_victim(move, victims) else move.content


def no_commit(move: Move) -> Any:
    """Commit to nothing.

    Answered by: its silence, which all see.
    """
    return None if move.phase is Phase.COMMIT else move.content


def mprng_abort(move: Move, is_silent: bool = True) -> Any:
    """Open no secret, to have the numbers drawn again.

    Args:
        move: what the liar is about to do.
        is_silent: else it opens another one than it had committed to.

    Answered by: its silence or its commitment; the next numbers are new.
    """
    if move.phase is not Phase.REVEAL:
        return move.content
    if is_silent:
        return None
    move.content["secret"][0] ^= 1
    return move.content


def false_accusation(move: Move) -> Any:
    """Accuse the first honest peer of lying about its sums.

    Answered by: everybody, who computes that peer's row again.
    """
    if move.phase is Phase.VERDICT and move.honest:
        move.content["accuses"][move.honest[0]] = 1
    return move.content


def false_complaint(move: Move) -> Any:
    """Complain that the first honest peer sent it nothing.

    Answered by: ELIMINATE, which costs one honest peer for each liar.
    """
    if move.phase is Phase.AGGREGATE and move.honest:
        move.content["complaints"][move.honest[0]] = 1
    return move.content


def _is_victim(move: Move, count: int) -> bool:
    return move.receiver in move.honest[:count]


def _shifted(move: Move, shift: float) -> Tensor:
    """The centre of a part, moved in a random direction."""
    point: Tensor = move.content
    rows = [
        row
        for (_, to), row in move.attempt.received.items()
        if to == move.peer and bool(row.isfinite().all())
    ]
    if not rows or not len(point) or not bool(point.isfinite().all()):
        return point
    apart = torch.stack([(row - point).norm() for row in rows]).median()
    away = torch.from_numpy(move.random.standard_normal(len(point))).to(point)
    moved: Tensor = point + shift * apart * away / away.norm()
    return moved


def _cover(move: Move, aggregator: int) -> None:
    """Take this liar's share of what the sums of a part add up to from its own sum."""
    attempt = move.attempt
    colluders = [peer for peer in attempt.active if peer in move.liars and peer != aggregator]
    colluders = colluders or [aggregator]
    if move.peer not in colluders:
        return
    part = attempt.roster.place_of[aggregator]
    where = attempt.parts[part]
    count = where.stop - where.start
    drawn = lottery.directions(attempt.drawn, part, attempt.rules.projections, count)
    pieces = [attempt.gradients.known(peer)[where] for peer in attempt.active]
    finite = [bool(piece.isfinite().all()) for piece in pieces]
    middle, tau = attempt.aggregate[where], attempt.rules.clipping.tau
    s, _ = sums.numbers(pieces, finite, middle, drawn, tau)
    move.content["s"][part] -= np.sum(s, axis=0) / len(colluders)
