"""The result of a check."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: its name.
        state: a ``note`` is worth knowing, a ``problem`` stops some run.
        said: what was found, in one line.
        advice: what to do; empty if the state is ``ok``.
    """

    check: str
    state: State
    said: str
    advice: str = ""


Check = Callable[[], Finding]


def worst(check: str, said: list[str], notes: list[str], problems: list[str]) -> Finding:
    """Make a finding of what was found and of advice about notes and problems."""
    state: State = "problem" if problems else "note" if notes else "ok"
    return Finding(check, state, "; ".join(said), "; ".join([*problems, *notes]))
