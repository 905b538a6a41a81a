"""When liars lie."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from byzshield_exp.errors import ConfigError

TIMING_KEYS = ("start", "every", "stop")  # of the group adversary, whatever its function


@dataclass(frozen=True)
class Timing:
    """The steps at which the chosen workers lie. At others they behave.

    Steps are numbered from 1, as in a run's records.

    Attributes:
        start: the first step that may be one, at least 1.
        every: only multiples of it, at least 1.
        stop: they lie before it, at least 1; None: to the end.
    """

    start: int = 1
    every: int = 1
    stop: int | None = None

    @classmethod
    def of(cls, choice: Mapping[str, Any]) -> "Timing":
        """Read it from the choice of the group ``adversary``; what is not given is as above.

        Raises:
            ConfigError: with the key, the value and the bound.
        """
        given = {key: choice[key] for key in TIMING_KEYS if key in choice}
        for key, value in given.items():
            if not (type(value) is int and value >= 1) and not (key == "stop" and value is None):
                or_null = " or null" if key == "stop" else ""
                raise ConfigError(
                    f"adversary.{key}={value!r} must be a whole number from 1{or_null}"
                )
        timing = cls(**given)
        if next(timing.steps(), None) is None:
            raise ConfigError(
                f"adversary.start={timing.start} adversary.every={timing.every} "
                f"adversary.stop={timing.stop}: there is no such step"
            )
        return timing

    def covers(self, step: int) -> bool:
        """Whether they lie at a step, here counted from 0."""
        number = step + 1
        is_early_enough = self.stop is None or number < self.stop
        return number >= self.start and is_early_enough and number % self.every == 0

    def steps(self) -> Iterator[int]:
        """Yield these steps, counted from 0."""
        first = -(-self.start // self.every) * self.every
        for number in count(first, self.every):
            if self.stop is not None and number >= self.stop:
                return
            yield number - 1

    def last_before(self, steps: int) -> int | None:
        """The last of them among the first ``steps`` steps, counted from 0; None: there is none."""
        last = min(steps, steps if self.stop is None else self.stop - 1) // self.every * self.every
        return last - 1 if last >= self.start else None


@dataclass(frozen=True)
class TimedAdversary:
    """``adversary(step) -> workers`` who lie at a step; nobody where the timing does not cover it.

    Args of the constructor:
        choose: ``choose(step=step) -> workers``.
        timing: when they lie.
    """

    choose: Callable[..., tuple[int, ...]]
    timing: Timing

    def __call__(self, step: int) -> tuple[int, ...]:
        """Who lies at a step, counted from 0."""
        return self.choose(step=step) if self.timing.covers(step) else ()

    def first_sets(self, most: int) -> list[tuple[int, ...]]:
        """The liars of the first steps at which they lie, of ``most`` steps at most."""
        return [self(step) for step in islice(self.timing.steps(), most)]

    def last_set(self, steps: int) -> tuple[int, ...]:
        """Who lied last in the first ``steps`` steps."""
        last = self.timing.last_before(steps)
        return () if last is None else self(last)
