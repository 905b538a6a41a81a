"""Tables of a step's report: seconds, counts, and what ranks say of themselves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from byzshield_exp.clusters import Statement
from byzshield_exp.training.stopwatch import TOTAL

_NAMED = 5  # files or workers of a line


def listed(values: Sequence[int]) -> str:
    """A few numbers, and how many more there are."""
    named = ", ".join(map(str, values[:_NAMED]))
    return named + (f" and {len(values) - _NAMED} more" if len(values) > _NAMED else "")


def middle_loss(reported: Float[Tensor, "f r"]) -> float:
    """The mean over files of the (lower) median reported loss, NaNs left out.

    Losses are not voted, so that one liar among a file's holders must not set the metric.
    """
    return float(reported.nanmedian(dim=1).values.nanmean())


def phases(own: Mapping[str, float], statements: Iterable[Statement]) -> dict[str, float]:
    """Seconds per phase: the server's own, and of others the slowest rank's."""
    longest: dict[str, float] = {}
    for statement in statements:
        for phase, value in statement.seconds.items():
            if value and phase != TOTAL:
                longest[phase] = max(value, longest.get(phase, 0.0))
    return longest | {phase: value for phase, value in own.items() if phase != TOTAL}


def profile(by_rank: Mapping[int, Statement], world_size: int) -> dict[str, Any]:
    """Seconds per phase and bytes, each a list over ranks; None where a rank said nothing."""
    ranks = [by_rank.get(rank) for rank in range(world_size)]
    tables: dict[str, Any] = {}
    for name in ("seconds", "cpu_seconds"):
        named = {phase for said in by_rank.values() for phase in getattr(said, name)}
        tables[name] = {
            phase: [None if said is None else getattr(said, name).get(phase, 0.0) for said in ranks]
            for phase in sorted(named)
        }
    for name in ("bytes_in", "bytes_out"):
        tables[name] = [None if said is None else getattr(said, name) for said in ranks]
    return tables
