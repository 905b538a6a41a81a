"""What a record says of a step of peers."""

import math
from typing import Any

from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard.attempt import Attempt
from byzshield_exp.training.btard.ledger import Ledger


def table(
    attempt: Attempt, ledger: Ledger, attacking: tuple[int, ...], bans_before: int
) -> dict[str, Any]:
    """The counts of a step; the same whatever processes play the peers.

    Args:
        attempt: the last one.
        ledger: after the step.
        attacking: who did.
        bans_before: how many there were before the step.
    """
    active, counts = attempt.active, attempt.counts
    said = [attempt.aggregates[peer] for peer in active]
    return {
        "alive": len(ledger.roster.live),
        "attacking": len(attacking),
        "banned": len(ledger.banned),
        "banned_now": tuple(sorted(ban.peer for ban, _ in ledger.bans[bans_before:])),
        "attempts": attempt.number + 1,
        "accusations": counts.accusations,
        "eliminations": counts.eliminations,
        "trials": counts.trials,
        "clipped_share": sum(int(one["clipped"]) for one in said) / len(active) ** 2,
        "iterations": max(int(one["iterations"]) for one in said),
        "residual": max(float(one["residual"]) for one in said),
        "data_bytes": counts.data,
        "control_bytes": counts.control,
    }


def distances(attempt: Attempt, attacking: tuple[int, ...]) -> dict[str, list[float]]:
    """How far rows are from the aggregate, as peers posted it; empty where they post nothing."""
    found: dict[str, list[float]] = {"distances_honest": [], "distances_attacking": []}
    if attempt.posted is not None:
        for peer, its in zip(attempt.active, attempt.posted.nu, strict=True):
            kind = "attacking" if peer in attacking else "honest"
            found[f"distances_{kind}"].append(math.hypot(*its))
    return found


def mean_loss(attempt: Attempt) -> float:
    """The mean of the finite losses that active peers post, which nobody checks; NaN of none."""
    posted = (float(attempt.committed[peer]["loss"]) for peer in attempt.active)
    losses = [loss for loss in posted if math.isfinite(loss)]
    return sum(losses) / len(losses) if losses else math.nan


def nonfinite(attempt: Attempt) -> str:
    """A line about the parts of the aggregate that are not finite; empty where there is none."""
    parts = attempt.parts
    lost = [place for place, where in enumerate(parts) if not is_finite(attempt.aggregate[where])]
    if not lost:
        return ""
    return f"step {attempt.step + 1}: no row is finite in parts {lost[:5]} of {len(parts)}"
