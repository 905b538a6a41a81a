"""Act on a request to stop (SIGTERM, SIGHUP, Ctrl-C) only where a run can stop without loss."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from byzshield_exp.errors import Stopped

_requested = threading.Event()
_is_last = threading.Event()
_asked: list[tuple[int, float]] = []  # signals that were noted in this process, and when
_STOP = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)  # the second: the terminal was closed
_ALL = (*_STOP, signal.SIGUSR2)  # the last is Slurm's, by way of submitit
_PATIENCE_S = 5.0  # a Ctrl-C so long after another one is meant: end at once


@contextmanager
def heard() -> Iterator[None]:
    """Note SIGTERM, SIGHUP and Ctrl-C for :func:`check`; nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, _note)
        for number in _STOP
        if signal.getsignal(number) is not signal.SIG_IGN  # set by nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if _is_last.is_set() else handler)
        _requested.clear()


def _note(number: int, frame: Any) -> None:
    """Note a signal.

    Raises:
        KeyboardInterrupt: at another Ctrl-C, some seconds after the first.
    """
    earlier = [when for one, when in _asked if one == number == signal.SIGINT]
    if _requested.is_set() and earlier and time.monotonic() - earlier[0] > _PATIENCE_S:
        raise KeyboardInterrupt
    _asked.append((number, time.monotonic()))
    _requested.set()


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore all requests; processes started within ignore them for their whole life."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ALL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_further_signals() -> None:
    """Ignore signals after :func:`heard`, while final messages are written."""
    _is_last.set()


def request() -> None:
    """Ask to stop, as SIGTERM does."""
    _requested.set()


def requested() -> bool:
    """Whether a request has come."""
    return _requested.is_set()


def forget() -> None:
    """Begin a command: nothing has been asked for."""
    _asked.clear()


def is_by_ctrl_c() -> bool:
    """Whether the first request that this process noted was Ctrl-C."""
    return bool(_asked) and _asked[0][0] == signal.SIGINT


def stopped(rest: str = "") -> Stopped:
    """Make the error of a run that stops on request, with who asked.

    Args:
        rest: what follows in its line.
    """
    return Stopped(f"stopped by {'Ctrl-C' if is_by_ctrl_c() else 'SIGTERM'}{rest}")


def check() -> None:
    """Stop here if a stop was requested.

    Raises:
        Stopped: if it was.
    """
    if _requested.is_set():
        raise stopped()
