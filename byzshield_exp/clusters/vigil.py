"""Wait for torch.distributed: no longer than allowed, and with a word about who is lost."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import Store, Work

from byzshield_exp import interrupts
from byzshield_exp.errors import LostRank, LostServer, Stopped, first_line

T = TypeVar("T")
_LOOK_S = 0.1  # between two looks at signals, deadlines and the server's beat
_BEAT_S = 1.0
_PAUSE_S = 2.0  # a look that is later by this: the process was stopped meanwhile
_PROBE_S = 0.5
_PROBE = 9  # a tag that nobody sends
_BEAT = "beat"


class _Failed(Exception):
    """An operation ended with an error.

    Attributes:
        rank: the other end, where it is one rank.
    """

    def __init__(self, rank: int | None, error: Exception) -> None:
        super().__init__(first_line(error))
        self.rank = rank


class Vigil:
    """Waits on one rank of a process group.

    torch's waits hear no signals, and a wait with a timeout closes the connection. So each is done
    in a thread, and this one looks at signals and the clock. On rank 0 another thread tells the
    store every second that the process is alive: the others wait for it while it evaluates or
    saves, but not if it is stopped or its machine is gone.

    Args of the constructor:
        rank: of this process.
        store: that all ranks reach.

    Attributes:
        seconds: how long to wait for another rank.
        name: names a rank in a message.
        is_broken: whether operations are left unfinished, so that none may follow.
    """

    def __init__(self, rank: int, store: Store) -> None:
        self.rank, self._store = rank, store
        self.seconds = 300.0
        self.name: Callable[[int], str] = "rank {}".format
        self.is_broken = False
        self._awaited: int | None = None
        self._is_over = threading.Event()
        if rank == 0:
            store.set(_BEAT, "0")
            threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """End the beat."""
        self._is_over.set()

    def patiently(self, do: Callable[[], T], seconds: float | None = None) -> T:
        """Return what ``do()`` returns; it waits by :meth:`finish` only.

        Args:
            do: is called in a thread of its own.
            seconds: how long rank 0 waits; None: :attr:`seconds`.

        Raises:
            LostRank: on rank 0, if a rank is gone, or late.
            LostServer: on another rank, if rank 0 is.
            Stopped: on rank 0 at SIGTERM.
        """
        answers: SimpleQueue[T | Exception] = SimpleQueue()
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

        def answer() -> None:
            try:
                if device is not None:
                    torch.cuda.set_device(device)
                answers.put(do())
            except Exception as error:
                answers.put(error)

        self._awaited = None
        threading.Thread(target=answer, daemon=True).start()
        try:
            found = self._await(answers, self.seconds if seconds is None else seconds)
            if isinstance(found, Exception):
                raise found
            return found
        except _Failed as failed:
            self.is_broken = True
            raise self._explained(failed) from failed
        except BaseException:
            self.is_broken = True
            raise

    def finish(self, works: Iterable[tuple[int | None, Work | None]]) -> None:
        """Wait for operations, in the thread of :meth:`patiently`.

        Args:
            works: each with the rank at its other end, None where there are several.
        """
        for self._awaited, work in works:
            try:
                if work is not None:
                    work.wait()
                    if torch.cuda.is_initialized():  # NCCL has only queued it
                        torch.cuda.current_stream().synchronize()
            except RuntimeError as error:
                raise _Failed(self._awaited, error) from error

    def _await(self, answers: "SimpleQueue[T | Exception]", seconds: float) -> T | Exception:
        start = looked = beat_at = monotonic()
        beat = b""
        while True:
            with suppress(Empty):
                return answers.get(timeout=_LOOK_S)
            now = monotonic()
            if now - looked > _PAUSE_S:  # all of us may have been stopped
                start, beat_at = start + now - looked, beat_at + now - looked
            looked = now
            if self.rank == 0:
                self._check_signals()
                if now - start > seconds:
                    raise LostRank(self._late(seconds))
            elif now - beat_at > _BEAT_S:
                last, beat = beat, self._store.get(_BEAT)
                if beat != last:
                    beat_at = now
                elif now - beat_at > self.seconds:
                    raise LostServer(f"the server shows no sign of life for {self.seconds:.3g} s")

    def _check_signals(self) -> None:
        """Stop if that was asked for; but torchrun asks when a rank has died, so look for one."""
        try:
            interrupts.check()
        except Stopped as stopped:
            if gone := self._gone():
                raise LostRank(gone) from stopped
            raise

    def _explained(self, failed: _Failed) -> Exception:
        if self.rank > 0:
            return LostServer(f"lost the server: {failed}")
        if failed.rank is not None:
            return LostRank(f"{self.name(failed.rank)} is gone")
        return LostRank(self._gone() or f"a rank is gone: {failed}")

    def _late(self, seconds: float) -> str:
        if gone := self._gone():
            return gone
        who = "a rank" if self._awaited is None else self.name(self._awaited)
        return f"{who} has not answered for {seconds:.3g} s (cluster.worker_timeout)"

    def _gone(self) -> str:
        """Name the ranks whose connections are closed; no operation may follow."""
        gone: list[int] = []

        def look(rank: int) -> None:
            try:
                probe = torch.zeros(1, dtype=torch.uint8)
                work = dist.irecv(probe, rank, tag=_PROBE)
                assert work is not None  # this rank is in the group
                work.wait(timedelta(seconds=10 * _PROBE_S))
            except RuntimeError:
                gone.append(rank)  # at once; of one that is there, when nobody looks any more

        for rank in range(1, dist.get_world_size()):
            threading.Thread(target=look, args=(rank,), daemon=True).start()
        sleep(_PROBE_S)
        found = sorted(gone)
        if not found:
            return ""
        return f"{', '.join(map(self.name, found))} {'is' if len(found) == 1 else 'are'} gone"

    def _beat(self) -> None:
        count = 0
        with suppress(RuntimeError):  # the store is gone: so are we soon
            while not self._is_over.wait(_BEAT_S):
                count += 1
                self._store.set(_BEAT, str(count))
