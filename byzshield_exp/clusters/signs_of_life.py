"""What ranks write into their store, so that one that hangs is noticed and named."""

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import psutil
from torch.distributed import Store

from byzshield_exp.clusters.fingerprint import host_name
from byzshield_exp.errors import RunError, first_line

BEAT_S = 1.0
_BEAT, _SAID = "beat", "said"  # keys, as the next two for each rank
_HEARD, _PLACE = "heard/{}", "place/{}"


class SignsOfLife:
    """Rank 0 beats every second, also while it evaluates or saves; who waits for it hears that.

    So if rank 0 is stopped, the others notice. And if rank 0 waits too long, those are late that do
    not hear it: they wait for nobody.

    Args of the constructor:
        rank: of this process.
        store: that all ranks reach.
    """

    def __init__(self, rank: int, store: Store) -> None:
        self._rank, self._store = rank, store
        self._beats = 0
        self._is_over = threading.Event()
        store.set(_HEARD.format(rank), "0")
        store.set(_PLACE.format(rank), f"{os.getpid()} {host_name()}")
        if rank == 0:
            store.set(_BEAT, "0")
            threading.Thread(target=self._beat, daemon=True).start()

    @property
    def beats(self) -> int:
        """On rank 0, how often it has beaten."""
        return self._beats

    def hear(self) -> int:
        """On other ranks, return rank 0's count, and write that it was heard.

        Raises:
            RunError: if the store is gone; the same holds for the next two methods.
        """
        beats = self._read(_BEAT)
        with _store_errors():
            self._store.set(_HEARD.format(self._rank), str(beats))
        return beats

    def deaf(self, ranks: Collection[int], beats: int) -> list[int]:
        """Return those ranks that have not heard a beat."""
        return [rank for rank in ranks if self._read(_HEARD.format(rank)) < beats]

    def says_it_first(self) -> bool:
        """Whether no other rank has asked this."""
        with _store_errors():
            return int(self._store.add(_SAID, 1)) == 1

    def kill(self, rank: int) -> None:
        """Kill a rank that hangs or is stopped, where it is this one's sibling.

        It does not end when torchrun asks it to, for which torchrun waits 30 s.
        """
        with suppress(psutil.Error, RunError), _store_errors():
            pid, host = self._store.get(_PLACE.format(rank)).decode().split(" ", 1)
            process = psutil.Process(int(pid))
            if host == host_name() and process.ppid() == os.getppid():
                process.kill()

    def close(self) -> None:
        """End the beat."""
        self._is_over.set()

    def _read(self, key: str) -> int:
        with _store_errors():
            return int(self._store.get(key))

    def _beat(self) -> None:
        with suppress(RuntimeError):  # the store is gone: so are we soon
            while not self._is_over.wait(BEAT_S):
                self._store.set(_BEAT, str(self._beats + 1))
                self._beats += 1


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RunError(f"the ranks' store is gone: {first_line(error)}") from error
