"""Seconds per named phase of a step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, process_time

Seconds = dict[str, float]
TOTAL = "total"


class Stopwatch:
    """Adds up the seconds spent under each name until :meth:`reset`.

    Args:
        wait: called at the end of each phase: a GPU goes on with what it was told before.

    Attributes:
        seconds: on the wall clock.
        cpu_seconds: of all threads of this process.
    """

    def __init__(self, wait: Callable[[], object] | None = None) -> None:
        self._wait = wait
        self.seconds: Seconds = {}
        self.cpu_seconds: Seconds = {}
        self._start, self._cpu_start = perf_counter(), process_time()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start, cpu_start = perf_counter(), process_time()
        try:
            yield
            if self._wait is not None:
                self._wait()
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start
            cpu = self.cpu_seconds.get(phase, 0.0) + process_time() - cpu_start
            self.cpu_seconds[phase] = cpu

    def reset(self) -> tuple[Seconds, Seconds]:
        """Hand out both tables so far, with the whole time under ``total``; start from nothing."""
        now, cpu_now = perf_counter(), process_time()
        seconds, cpu_seconds = self.seconds, self.cpu_seconds
        seconds[TOTAL], cpu_seconds[TOTAL] = now - self._start, cpu_now - self._cpu_start
        self.seconds, self.cpu_seconds = {}, {}
        self._start, self._cpu_start = now, cpu_now
        return seconds, cpu_seconds
