"""Starting ranks on this machine, and ending all of them when one fails.

The ranks are forked from a preloaded server process (multiprocessing's forkserver), so that torch
is imported once and not once per rank. The caller only watches; it is no rank.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from byzshield_exp.errors import ConfigError, RunError

Rendezvous = tuple[str, int, int]  # file, rank, world size
_PRELOAD = ("torch", "torch.distributed", "numpy")
_GRACE_S = 3.0  # for other reports after the first failure, and for a rank to end when asked
_LOST_PEER = ("connection", "socket", "peer", "timed out", "rendezvous")


@dataclass
class _Rank:
    number: int
    process: BaseProcess
    reports: Connection
    report: dict[str, Any] | None = None

    @property
    def failed(self) -> bool:
        if self.report is not None:
            return "error" in self.report
        return self.process.exitcode is not None

    @property
    def done(self) -> bool:
        return self.process.exitcode is not None


def run_ranks(
    target: Callable[[Rendezvous, str], str | None],
    num_processes: int,
    job: str,
    preload: tuple[str, ...] = (),
) -> str | None:
    """Run ``target((file, rank, world size), job)`` in every rank; return what rank 0 returned.

    Args:
        target: a function of a module (children import it by name).
        num_processes: ranks to start.
        job: a text for all ranks.
        preload: modules that ranks need, imported once.

    Raises:
        RunError: when a rank fails or is killed, with the error of the rank that failed first.
            All other ranks are ended before; the same holds for any exception in the caller,
            Ctrl-C included.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOAD, *preload])
    with tempfile.TemporaryDirectory(prefix="byzshield-") as folder:
        store = str(Path(folder) / "rendezvous")
        ranks = []
        try:
            for number in range(num_processes):
                receiving, sending = context.Pipe(duplex=False)
                process = context.Process(
                    target=_run_rank,
                    args=(target, (store, number, num_processes), job, sending),
                    name=f"rank {number}",
                )
                process.start()
                sending.close()
                ranks.append(_Rank(number, process, receiving))
            _watch(ranks)
        finally:
            _end(ranks)
    result = (ranks[0].report or {}).get("result")
    return result if result is None else str(result)


def _watch(ranks: list[_Rank]) -> None:
    """Return when all ranks have ended well; raise the root cause when one has not."""
    while not all(rank.done for rank in ranks):
        _collect(ranks, timeout_s=1.0)
        if any(rank.failed for rank in ranks):
            deadline = time.monotonic() + _GRACE_S
            while time.monotonic() < deadline and not all(rank.done for rank in ranks):
                _collect(ranks, timeout_s=0.1)
            break
    _collect(ranks, timeout_s=0.0)
    error = root_cause({rank.number: (rank.process.exitcode, rank.report) for rank in ranks})
    if error is not None:
        raise error


def root_cause(ends: dict[int, tuple[int | None, dict[str, Any] | None]]) -> Exception | None:
    """Who failed first: an error of its own before a killed rank before a lost connection.

    This is the one place that decides which missing ranks end a run: today, any.

    Args:
        ends: per rank its exit code (None while it runs) and its report, if it made one.

    Returns:
        The error to raise, or None when every rank ended well.
    """
    failures = [
        failure
        for rank, (code, report) in ends.items()
        if (failure := _failure(rank, code, report)) is not None
    ]
    if not failures:
        return None
    *_, kind, error, trace = min(failures)
    if kind == "ConfigError":
        return ConfigError(error)
    if kind != "RunError":  # a programming error; a run that failed as foreseen has its line
        sys.stderr.write(trace)
    return RunError(error)


def _failure(
    rank: int, code: int | None, report: dict[str, Any] | None
) -> tuple[int, int, int, str, str, str] | None:
    """How bad, when, which rank, kind, one line, traceback; None if the rank is well."""
    if report is not None and "error" in report:
        error = report["error"]
        if report["kind"] != "ConfigError":
            error = f"rank {rank}: {error}"
        return (_severity(report), report["time"], rank, report["kind"], error, report["traceback"])
    if report is not None or code is None:
        return None
    how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    return (1, 0, rank, "RunError", f"rank {rank} {how}", "")


def _severity(report: dict[str, Any]) -> int:
    """An error of its own, 0; (killed, 1;) the server's word on whom it lost, 2; a lost peer, 3."""
    if report["error"].startswith("lost "):
        return 2
    is_lost = report["kind"] == "RuntimeError" or "Dist" in report["kind"]
    return 3 if is_lost and any(word in report["error"].lower() for word in _LOST_PEER) else 0


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
    """End what still runs: first asked, then killed."""
    for rank in ranks:
        if not rank.done:
            rank.process.terminate()
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
    threading.Thread(target=_exit_with_the_caller, daemon=True).start()
    try:
        report: dict[str, Any] = {"result": target(rendezvous, job)}
    except Exception as error:
        report = {
            "error": str(error).splitlines()[0] if str(error) else repr(error),
            "kind": type(error).__name__,
            "time": time.time_ns(),
            "traceback": traceback.format_exc(),
        }
        if report["kind"] not in ("ConfigError", "RunError"):
            report["error"] = f"{report['kind']}: {report['error']}"
    reports.send_bytes(json.dumps(report).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if "error" in report else 0)  # at once: a group with a dead peer may hang in exit


def _exit_with_the_caller() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
