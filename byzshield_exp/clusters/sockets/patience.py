"""How long each rank is waited for, and who is silent."""

from collections.abc import Iterable

_SLOWEST, _FORGIVEN = 5.0, 0.05  # halvings of the patience; what an answer in time takes off
_FAIR = 3.0  # times what half of the ranks took, everybody has


class Patience:
    """The waiting of a server.

    A rank has half as many seconds each time that it was silent, until it answers in time again, so
    that it cannot slow every step; but nobody has less than a multiple of what the others needed.

    Args of the constructor:
        ranks: with workers.
        timeout: the most seconds.

    Attributes:
        silent: ranks that did not answer in time and have not answered since.
        slowness: by rank, how often its patience is halved.
        timeout: as given.
    """

    def __init__(self, ranks: Iterable[int], timeout: float) -> None:
        self.timeout = timeout
        self.silent: set[int] = set()
        self.slowness: dict[int, float] = dict.fromkeys(ranks, 0.0)
        self._half_took: float | None = None  # seconds until half of those asked had answered
        self._asked = self._answers = 0

    def ask(self, ranks: int) -> None:
        """So many ranks are asked at the same time: a step begins."""
        self._half_took, self._asked, self._answers = None, ranks, 0

    def of(self, rank: int) -> float:
        """Seconds for a rank; all of them until half of the others have answered."""
        if self._half_took is None:
            return self.timeout
        least = _FAIR * self._half_took
        return min(self.timeout, max(self.timeout / 2 ** self.slowness[rank], least))

    def answered(self, rank: int, seconds: float) -> None:
        """A rank has answered in time, so many seconds after it was asked."""
        self._answers += 1
        if self._half_took is None and 2 * self._answers >= self._asked:
            self._half_took = seconds
        if rank not in self.silent:
            self.slowness[rank] = max(0.0, self.slowness[rank] - _FORGIVEN)

    def gave_up(self, rank: int) -> bool:
        """A rank has not answered in time; whether that is new."""
        if rank in self.silent:
            return False
        self.silent.add(rank)
        self.slowness[rank] = min(_SLOWEST, self.slowness[rank] + 1)
        return True

    def distrust(self, rank: int) -> None:
        """Let a rank be the last to be asked for a row."""
        self.slowness[rank] = _SLOWEST
