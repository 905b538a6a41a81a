"""Join the processes of a run: those that torchrun started, or those of a known place."""

import os
import secrets
from contextlib import suppress
from datetime import timedelta
from time import monotonic, sleep

from torch.distributed import FileStore, PrefixStore, Store, TCPStore

from byzshield_exp import interrupts
from byzshield_exp.clusters import meeting
from byzshield_exp.clusters.alone import AloneChannel
from byzshield_exp.clusters.group_channel import BACKENDS, ProcessGroupChannel
from byzshield_exp.clusters.meeting import Rendezvous, are_on_one_machine
from byzshield_exp.clusters.sockets.joining import join_at, join_by_store
from byzshield_exp.clusters.transport import Channel
from byzshield_exp.errors import LostServer, RunError, first_line

_LOOK_S = 0.05
_FAILURE = "failure"


def join(rendezvous: Rendezvous, backend: str = "sockets") -> Channel:
    """Join a group; over sockets a single process needs no connections, and plays everybody.

    Args:
        rendezvous: where.
        backend: ``gloo`` or ``nccl``; any other, as that of a run without a cluster: sockets.

    Raises:
        RunError: if the others do not come.
    """
    rank, world_size = rendezvous.rank, rendezvous.world_size
    if backend not in BACKENDS:
        return AloneChannel() if world_size == 1 else join_at(rendezvous)
    host, _, port = rendezvous.address.rpartition(":")
    is_here = rendezvous.address.startswith("/")
    try:
        if is_here:
            store: Store = FileStore(f"{rendezvous.address}.store", world_size)
        else:
            limit = timedelta(seconds=meeting.JOIN_S)
            store = TCPStore(host, int(port), world_size, is_master=rank == 0, timeout=limit)
        store = meet(PrefixStore(rendezvous.secret, store), rank, world_size)
    except RunError:
        raise
    except RuntimeError as error:
        raise RunError(f"rank {rank} found no group: {first_line(error)}") from error
    return ProcessGroupChannel(store, rank, world_size, backend, "" if is_here else host)


def meet(store: Store, rank: int, world_size: int) -> Store:
    """Wait for all ranks; return a part of the store that no other attempt of theirs uses.

    torchrun's store outlives a restart, and its agents do not always count restarts alike. So each
    rank writes a word that is new, and rank 0 answers to it with the name of this attempt.

    Raises:
        RunError: on rank 0, naming the ranks that do not come.
    """
    word = secrets.token_hex(8)
    if rank > 0:
        answer = f"answer/{word}"
        store.set(f"word/{rank}", word)
        while not store.check([answer]):  # a wait that ends in vain complains
            sleep(_LOOK_S)
        attempt = PrefixStore(store.get(answer).decode(), store)
        attempt.set(f"here/{rank}", "")
        return attempt
    attempt = PrefixStore(word, store)
    deadline, missing = monotonic() + meeting.JOIN_S, list(range(1, world_size))
    while missing := [other for other in missing if not attempt.check([f"here/{other}"])]:
        for key in (f"word/{other}" for other in missing):
            if store.check([key]):
                store.set(f"answer/{store.get(key).decode()}", word)
        if monotonic() > deadline:
            raise RunError(f"ranks {missing} did not come within {meeting.JOIN_S:.0f} s")
        interrupts.check()
        sleep(_LOOK_S)
    return attempt


class Torchrun:
    """The processes that torchrun started; its store carries the jobs of a sweep.

    Raises:
        RunError: if there is no store, or other ranks do not come.
    """

    def __init__(self) -> None:
        from torch.distributed.rendezvous import rendezvous as find_store

        try:
            store, self.rank, self.world_size = next(find_store("env://"))
            self._store = meet(PrefixStore("byzshield", store), self.rank, self.world_size)
        except RunError:
            raise
        except (RuntimeError, ValueError) as error:
            raise RunError(f"torchrun's store is not found: {first_line(error)}") from error
        self._channels: dict[str, Channel] = {}
        self._jobs = 0

    def tell(self, text: str) -> None:
        """On rank 0, send a job to all ranks; an empty one is the last."""
        self._jobs += 1
        self._store.set(f"job/{self._jobs}", text)

    def hear(self) -> str:
        """On other ranks, wait for rank 0's next job.

        Raises:
            LostServer: if the store is gone.
        """
        self._jobs += 1
        key = f"job/{self._jobs}"
        try:
            while not self._store.check([key]):  # a wait that ends in vain complains
                sleep(_LOOK_S)
            return self._store.get(key).decode()
        except RuntimeError as error:
            raise LostServer(f"lost the server: {first_line(error)}") from error

    def report(self, failure: str) -> None:
        """On other ranks, leave word of a failure for rank 0, if nobody has before."""
        with suppress(RuntimeError):  # the store is gone
            self._store.compare_set(_FAILURE, "", failure)

    def failure(self) -> str:
        """On rank 0, what another rank reported; empty: nothing."""
        with suppress(RuntimeError):
            return self._store.get(_FAILURE).decode() if self._store.check([_FAILURE]) else ""
        return ""

    def channel(self, backend: str) -> Channel:
        """Return what carries the rows of the job that was told last.

        Raises:
            RunError: if the other ranks do not come.
        """
        if backend not in self._channels:
            self._channels[backend] = self._join(backend)
        channel = self._channels[backend]
        channel.run = self._jobs
        return channel

    def _join(self, backend: str) -> Channel:
        if backend != "sockets":
            if begun := BACKENDS.keys() & self._channels.keys():
                raise RunError(
                    f"cluster.backend={backend}: the processes are a group of {begun.pop()} "
                    "already; start the same command again for this run"
                )
            host = "" if are_on_one_machine() else os.environ["MASTER_ADDR"]
            return ProcessGroupChannel(self._store, self.rank, self.world_size, backend, host)
        if self.world_size == 1:
            return AloneChannel()
        return join_by_store(self._store, self.rank, self.world_size)

    def close(self) -> None:
        """Close this process's connections."""
        for channel in self._channels.values():
            channel.close()
