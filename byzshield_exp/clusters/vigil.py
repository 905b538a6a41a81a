"""Wait for torch.distributed: no longer than allowed, and with a word about who is lost."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp, Store, Work

from byzshield_exp import interrupts
from byzshield_exp.clusters.signs_of_life import BEAT_S, SignsOfLife
from byzshield_exp.errors import LostRank, LostServer, RunError, first_line

T = TypeVar("T")
_LOOK_S = 0.1  # between two looks at signals, deadlines and lost ranks
_LONGEST_LOOK_S = 0.5  # a longer one: this process was stopped, and perhaps all were
_ROLL_CALL_S = 2.5 * BEAT_S
_NOTICE_S = 1.0  # between the end of a rank and its notice here
_RANK_0_ENDS_S = 10.0  # after a loss that it notices too
_FAREWELL = 9  # a tag
_FEWEST_BEATS = 3  # that rank 0 may miss
_POLL_S = 0.0002


@runtime_checkable
class Waitable(Protocol):
    """What :func:`finish` waits for."""

    def wait(self) -> object:
        """Wait."""
        ...


class OnDevice:
    """An operation of NCCL, whose own wait returns at once and has the GPU wait, even for ever.

    So that rank 0's GPU can still be read when a rank is lost, it waits only for what is done.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def wait(self) -> None:
        """Wait until the GPU has done it."""
        while not self._work.is_completed():
            sleep(_POLL_S)
        self._work.wait()


class Vigil:
    """Waits on one rank of a process group.

    torch's waits hear no signals, and a wait with a timeout closes the connection. So each is done
    in another thread, and this one looks at signals, the clock, and who is lost. When a process
    ends, its connections are closed, and what is expected by them fails: rank 0 expects a farewell
    from each rank, and each from rank 0. Who hangs, :class:`SignsOfLife` tell.

    Args of the constructor:
        rank: of this process.
        world_size: processes of the group.
        store: that all ranks reach.

    Attributes:
        seconds: how long to wait for another rank.
        name: names a rank in a message.
        is_broken: whether operations are left unfinished, so that none may follow.
        is_needed: on other ranks than 0, whether a run goes on: one that loses rank 0 in it ends
            wherever it is.
    """

    def __init__(self, rank: int, world_size: int, store: Store) -> None:
        self.rank = rank
        self.seconds = 300.0
        self.name: Callable[[int], str] = "rank {}".format
        self.is_broken = self.is_needed = False
        self._signs = SignsOfLife(rank, store)
        self._others = range(1, world_size) if rank == 0 else range(1)
        self._gone: list[int] = []
        self._has_lost = threading.Event()
        self._late: list[int] = []
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def lost(self) -> str:
        """Names the ranks that have ended without a farewell; empty: none has."""
        gone = sorted(self._gone)
        return f"{self._names(gone)} {'is' if len(gone) == 1 else 'are'} gone" if gone else ""

    def watch(self) -> None:
        """Notice from now on who ends; the group is there."""
        for rank in self._others:
            farewell = dist.irecv(torch.zeros(1, dtype=torch.uint8), rank, tag=_FAREWELL)
            threading.Thread(target=self._notice, args=(rank, farewell), daemon=True).start()

    def close(self) -> None:
        """End the beat and the waiting thread, and say farewell to rank 0."""
        self._tasks.put(None)
        self._signs.close()
        if self.rank > 0 and not self.is_broken:
            with suppress(RuntimeError):  # rank 0 has left before
                finish([dist.isend(torch.zeros(1, dtype=torch.uint8), 0, tag=_FAREWELL)])

    def break_off(self) -> None:
        """Leave operations unfinished: this process can only end."""
        self.is_broken = True
        if self.rank == 0:
            interrupts.ignore_further_signals()  # torchrun's, as a rank is lost

    def kill_late(self) -> None:
        """Kill the ranks beside this one that hang or are stopped."""
        while self._late:
            self._signs.kill(self._late.pop())

    def patiently(self, do: Callable[[], T], seconds: float | None = None) -> T:
        """Return what ``do()`` returns, which waits for operations.

        Args:
            do: is called in the thread that waits.
            seconds: how long rank 0 waits; None: :attr:`seconds`.

        Raises:
            LostRank: on rank 0, if a rank is gone, or late.
            LostServer: on another rank, if rank 0 is gone.
            RunError: on another rank, if rank 0 hangs.
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

        self._tasks.put(answer)
        with self.blaming():
            found = self._await(answers, self.seconds if seconds is None else seconds)
            if isinstance(found, Exception):
                raise found
            return found

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Break off at any error; where an operation fails, raise who is lost."""
        try:
            yield
        except BaseException as error:
            self.break_off()
            if isinstance(error, RuntimeError) and not isinstance(error, RunError):
                raise self._explained(error) from error
            raise

    def _await(self, answers: "SimpleQueue[T | Exception]", seconds: float) -> T | Exception:
        looked, waited = monotonic(), 0.0
        beats, beat_at, heard_at = -1, 0.0, 0.0
        while True:
            with suppress(Empty):
                return answers.get(timeout=_LOOK_S)
            now = monotonic()
            waited += min(now - looked, _LONGEST_LOOK_S)
            looked = now
            if self.rank == 0:
                self._look_at_others(waited, seconds)
            elif waited - heard_at > BEAT_S:
                heard_at, last, beats = waited, beats, self._signs.hear()
                if beats != last:
                    beat_at = waited
                elif waited - beat_at > max(self.seconds, _FEWEST_BEATS * BEAT_S):
                    raise self._silence()

    def _look_at_others(self, waited: float, seconds: float) -> None:
        if self._gone:
            raise LostRank(self.lost)
        interrupts.check()
        if waited > seconds:
            raise LostRank(self._call_the_roll(seconds))

    def _call_the_roll(self, seconds: float) -> str:
        """Say who is late."""
        beats = self._signs.beats
        if self._has_lost.wait(_ROLL_CALL_S):
            return self.lost
        with suppress(RunError):
            self._late = self._signs.deaf(self._others, beats)
        who, have = self._names(self._late) or "a rank", "have" if len(self._late) > 1 else "has"
        key = " (cluster.worker_timeout)" if seconds == self.seconds else ""
        return f"{who} {have} not answered for {seconds:.3g} s{key}"

    def _silence(self) -> RunError:
        """Return the error of a rank whose server hangs; the first one says it."""
        silent = f"rank 0, the server, shows no sign of life for {self.seconds:.3g} s"
        if not self._signs.says_it_first():
            return LostServer(silent)
        self._signs.kill(0)
        return RunError(f"{silent} (cluster.worker_timeout)")

    def _explained(self, error: RuntimeError) -> RunError:
        said = f"a message failed: {first_line(error)}"
        if self.rank == 0:
            self._has_lost.wait(_NOTICE_S)
            return LostRank(self.lost or said)
        # Parameters come by way of other ranks: if one of them is lost, rank 0 names it, and ends.
        # If this one ended before, rank 0 would name it too.
        return LostServer(said) if self._has_lost.wait(_RANK_0_ENDS_S) else RunError(said)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _notice(self, rank: int, farewell: Work | None) -> None:
        try:
            finish([farewell])
        except RuntimeError:
            self._gone.append(rank)
            self._has_lost.set()
            if self.rank > 0:
                sleep(_NOTICE_S)  # for rank 0's last word, which may come by way of another rank
                if self.is_needed:
                    os._exit(1)

    def _names(self, ranks: Sequence[int]) -> str:
        return ", ".join(map(self.name, ranks))


def finish(works: Iterable[Waitable | None]) -> None:
    """Wait for operations."""
    for work in works:
        if work is not None:
            work.wait()


def start(operations: list[P2POp]) -> list[Waitable]:
    """Begin operations between two ranks each; gloo returns one work for each, NCCL one for all."""
    if not operations:
        return []
    return all_of(dist.batch_isend_irecv(operations), operations[0].tensor)


def all_of(works: Sequence[Work | None], tensor: Tensor) -> list[Waitable]:
    """Return the operations on a tensor that there are."""
    there = [work for work in works if work is not None]
    return [OnDevice(work) for work in there] if tensor.device.type == "cuda" else [*there]
