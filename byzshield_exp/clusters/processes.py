"""Start ranks on this machine, and end all of them when the run is over or has failed.

The ranks are forked from a preloaded server process (multiprocessing's forkserver), so that torch
is imported once and not once per rank. The caller only watches; it is no rank. A rank with workers
that is killed ends nothing: what its loss means is the parameter server's to say.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from byzshield_exp import interrupts
from byzshield_exp.clusters.meeting import Rendezvous, meeting_place
from byzshield_exp.errors import ConfigError, RunError, Stopped, located, place_of
from byzshield_exp.notices import complain, note

_PRELOAD = ("torch", "numpy")
_FORESEEN = (
    "ConfigError", "RunError", "PartError", "TooFewReplicas", "LostRank", "LostServer", "Stopped",
)  # fmt: skip
_GRACE_S = 3.0  # for other reports after the first failure, and for a rank to end when asked


@dataclass
class _Rank:
    number: int
    process: BaseProcess
    reports: Connection
    report: dict[str, Any] | None = None

    @property
    def has_error(self) -> bool:
        """Whether it failed by an error of its own, not because the server is gone."""
        report = self.report or {}
        return "error" in report and report["kind"] != "LostServer"

    @property
    def failed(self) -> bool:
        return self.has_error if self.report is not None else self.done

    @property
    def done(self) -> bool:
        return self.process.exitcode is not None


@dataclass(frozen=True)
class Node:
    """One of several machines of a run, and its share of the processes.

    Attributes:
        ranks: to start here.
        address: ``host:port`` of the machine with rank 0.
        secret: what all processes of the run know.
        failed_elsewhere: looks whether another machine's ranks have failed.
    """

    ranks: Sequence[int]
    address: str
    secret: str = field(repr=False)
    failed_elsewhere: Callable[[], Exception | None]


def run_ranks(
    target: Callable[[Rendezvous, str], str | None],
    num_processes: int,
    job: str,
    preload: tuple[str, ...] = (),
    node: Node | None = None,
) -> str | None:
    """Run ``target(rendezvous, job)`` in every rank; return what rank 0 returned.

    Args:
        target: a function of a module (children import it by name).
        num_processes: ranks of the run.
        job: a text for all ranks.
        preload: modules that ranks need, imported once.
        node: this machine; None: all ranks are on this one.

    Raises:
        RunError: when a rank fails or rank 0 is killed, with the error of the rank that failed
            first. All other ranks are ended before; the same holds for any exception in the
            caller.
        Stopped: when SIGTERM or Ctrl-C came and rank 0 has ended in order.
    """
    start_forkserver(preload)
    context = multiprocessing.get_context("forkserver")
    with _places(num_processes, node) as places, interrupts.heard():
        ranks = []
        try:
            for place in places:
                receiving, sending = context.Pipe(duplex=False)
                process = context.Process(
                    target=_run_rank,
                    args=(target, place, job, sending),
                    name=f"rank {place.rank}",
                )
                process.start()
                sending.close()
                ranks.append(_Rank(place.rank, process, receiving))
            _watch(ranks, node.failed_elsewhere if node else lambda: None)
        finally:
            _end(ranks)
    result = (ranks[0].report or {}).get("result")
    return result if result is None else str(result)


def start_forkserver(preload: tuple[str, ...] = ()) -> None:
    """Start the process that forks the ranks; in a main thread before others ask for it.

    It lives through what Slurm or a terminal sends to all processes: ranks would seem to be gone
    without it.
    """
    known = multiprocessing.get_all_start_methods()
    if multiprocessing.get_start_method(allow_none=True) not in (None, *known):
        multiprocessing.set_start_method("forkserver", force=True)  # joblib's, unknown to children
    multiprocessing.get_context("forkserver").set_forkserver_preload([*_PRELOAD, *preload])
    with interrupts.ignored():
        forkserver.ensure_running()


@contextmanager
def _places(num_processes: int, node: Node | None) -> Iterator[list[Rendezvous]]:
    if node is None:
        with meeting_place(num_processes) as places:
            yield places
    else:
        yield [Rendezvous(node.address, node.secret, rank, num_processes) for rank in node.ranks]


def _watch(ranks: list[_Rank], failed_elsewhere: Callable[[], Exception | None]) -> None:
    """Return when rank 0, or all ranks where it is elsewhere, have ended well.

    Raises:
        Exception: the root cause, when a rank has failed.
    """
    server = ranks[0] if ranks[0].number == 0 else None
    error = None
    while error is None and not any(rank.has_error for rank in ranks):
        if server.done if server else all(rank.done for rank in ranks):
            break
        _collect(ranks, timeout_s=1.0)
        error = failed_elsewhere()
        if server and interrupts.requested():  # again and again: it is deaf while it starts
            server.process.terminate()  # it ends in order, and the others with it
    if (server and server.failed) or any(rank.has_error for rank in ranks):
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline and not all(rank.done for rank in ranks):
            _collect(ranks, timeout_s=0.1)
    _collect(ranks, timeout_s=0.0)
    ends = {rank.number: (rank.process.exitcode, rank.report) for rank in ranks}
    error = failed_elsewhere() or root_cause(ends)
    if error is not None and interrupts.requested():
        if not isinstance(error, Stopped):
            raise interrupts.stopped(" before the first step") from error
        # rank 0 knows only the SIGTERM that this process has sent it
        raise interrupts.stopped(str(error).removeprefix("stopped by SIGTERM")) from error
    if error is not None:
        raise error


def root_cause(ends: dict[int, tuple[int | None, dict[str, Any] | None]]) -> Exception | None:
    """Who failed first: an error of its own before a killed server.

    Ranks with workers that were killed, or that lost the server, are no cause.

    Args:
        ends: per rank its exit code (None while it runs) and its report, if it made one.

    Returns:
        The error to raise, or None when rank 0 ended well and no other had an error of its own.
    """
    reports = {rank: report or {} for rank, (_, report) in ends.items()}
    own = [
        (report["time"], rank, report)
        for rank, report in reports.items()
        if "error" in report and report["kind"] != "LostServer"
    ]
    if own:
        _, rank, report = min(own, key=lambda failure: failure[:2])
        return _error_of(rank, report)
    code, end = ends.get(0, (None, None))
    if end is not None or code is None:
        return None
    how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    return RunError(f"rank 0, the server, {how}")


def _error_of(rank: int, report: dict[str, Any]) -> Exception:
    error, kind = report["error"], report["kind"]
    if kind == "ConfigError":
        return ConfigError(error)
    if kind == "Stopped":
        return Stopped(error)
    if kind not in _FORESEEN and not report.get("is_users"):  # a programming error
        complain(report["traceback"])
    else:
        note(report["traceback"])  # the line says enough on the terminal
    failed = RunError(error if rank == 0 else f"rank {rank}: {error}")
    failed.rank = rank
    return failed


def _collect(ranks: list[_Rank], timeout_s: float) -> None:
    """Read the reports that have come, waiting for one or for the end of a rank."""
    open_ends: list[Any] = [rank.process.sentinel for rank in ranks if not rank.done]
    open_ends += [rank.reports for rank in ranks if rank.report is None and not rank.done]
    wait(open_ends, timeout_s)
    for rank in ranks:
        if rank.report is None:
            try:
                if rank.reports.poll():
                    rank.report = json.loads(rank.reports.recv_bytes())
            except EOFError:
                continue


def _end(ranks: list[_Rank]) -> None:
    """End what still runs: ask the server to; the others lose it; kill what is left."""
    if ranks and ranks[0].number == 0 and not ranks[0].done:
        ranks[0].process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for rank in ranks:
        rank.process.join(max(0.0, deadline - time.monotonic()))
        if not rank.done:
            rank.process.kill()
            rank.process.join()
        rank.reports.close()


def _run_rank(
    target: Callable[[Rendezvous, str], str | None],
    rendezvous: Rendezvous,
    job: str,
    reports: Connection,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller gets it too and ends all ranks
    interrupts.ignore_further_signals()
    in_order = signal.SIG_DFL if rendezvous.rank == 0 else signal.SIG_IGN
    signal.signal(signal.SIGTERM, in_order)  # the server ends in order, and the others with it
    threading.Thread(target=_exit_with_the_caller, daemon=True).start()
    try:
        report: dict[str, Any] = {"result": target(rendezvous, job)}
    except Exception as error:
        report = {
            "error": located(error),
            "kind": type(error).__name__,
            "time": time.time_ns(),
            "traceback": traceback.format_exc(),
            "is_users": bool(place_of(error)),
        }
        if report["kind"] not in _FORESEEN:
            report["error"] = f"{report['kind']}: {report['error']}"
    reports.send_bytes(json.dumps(report).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if "error" in report else 0)  # at once: the threads of a connection may be waiting


def _exit_with_the_caller() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
