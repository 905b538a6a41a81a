"""Seconds per named phase of a step."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Adds up the wall-clock seconds spent under each name until :meth:`reset`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start

    def reset(self) -> dict[str, float]:
        """Hand out the seconds so far and start from nothing."""
        seconds, self.seconds = self.seconds, {}
        return seconds
