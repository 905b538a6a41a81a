"""What a check says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The answer of one check.

    Attributes:
        check: its name.
        state: ``note`` is worth knowing, ``problem`` stops some run.
        said: what there is, in one line.
        advice: what to do; nothing where it is ok.
    """

    check: str
    state: State
    said: str
    advice: str = ""


Check = Callable[[], Finding]


def worst(check: str, said: list[str], notes: list[str], problems: list[str]) -> Finding:
    """A finding made of parts: what there is, and what to do about some of it."""
    state: State = "problem" if problems else "note" if notes else "ok"
    return Finding(check, state, "; ".join(said), "; ".join([*problems, *notes]))
