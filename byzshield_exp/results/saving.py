"""Save checkpoints of a run on a disk that may be full, or away, for a while."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from byzshield_exp.errors import RunError
from byzshield_exp.results import checkpoint
from byzshield_exp.results.journal import Outage

PATIENCE_S = 60.0  # how long a run waits at its end for a disk that takes its results
_RETRY_SHARE = 0.1  # at most this share of the time goes into failing checkpoints, ...
_LONGEST_PAUSE_S = 60.0  # ... but one is tried at least this often


class Saver:
    """Writes the checkpoints of a run, and tries one again later that the disk does not take.

    Args of the constructor:
        folder: the run's folder.
        keep: how many checkpoints stay.

    Attributes:
        saved_at: the step of the newest checkpoint; None if there is none.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder / checkpoint.FOLDER, keep
        self._outage = Outage(f"the checkpoint in {self._folder}")
        self._damaged: tuple[Path, ...] = ()  # found at the start; the next save deletes them
        self._retry_at: float | None = None  # set while a checkpoint is overdue
        self.saved_at: int | None = None

    def newest(self) -> dict[str, Any] | None:
        """Read the newest checkpoint that can be read; None if there is none."""
        saved, self._damaged, _ = checkpoint.newest(self._folder)
        self.saved_at = None if saved is None else saved["step"]
        return saved

    @property
    def is_overdue(self) -> bool:
        """Whether a checkpoint that could not be written should be tried again."""
        return self._retry_at is not None and perf_counter() >= self._retry_at

    def save(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write a checkpoint; if the disk does not take it, try again after a while.

        Args:
            step: the last step done.
            state: makes the content; may raise ``OSError`` too.
        """
        start = perf_counter()
        if self._outage.attempt(step, lambda: self._write(step, state)):
            self._retry_at = None
            return
        end = perf_counter()
        self._retry_at = end + min((end - start) / _RETRY_SHARE, _LONGEST_PAUSE_S)

    def save_last(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write the checkpoint of a run's end.

        Raises:
            RunError: if the disk does not take it within ``PATIENCE_S``.
        """
        insist(self._outage, step, lambda: self._write(step, state))

    def _write(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        checkpoint.save(self._folder, step, state(), self._keep, self._damaged)
        self.saved_at, self._damaged = step, ()


def insist(outage: Outage, step: int, write: Callable[[], object]) -> None:
    """Write something at the end of a run; try again for ``PATIENCE_S`` seconds.

    Raises:
        RunError: if it still fails then.
    """
    deadline = perf_counter() + PATIENCE_S
    while not outage.attempt(step, write):
        if perf_counter() >= deadline:
            raise RunError(
                f"{outage.what} could not be written for {PATIENCE_S:g} s ({outage.error}): "
                "the same command goes on from the last checkpoint"
            )
        sleep(min(1.0, PATIENCE_S))
