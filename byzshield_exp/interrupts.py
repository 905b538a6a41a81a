"""Act on a request to stop (SIGTERM, SIGHUP) only where a run can stop without loss."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from byzshield_exp.errors import Stopped

_requested = threading.Event()
_is_last = threading.Event()
_STOP = (signal.SIGTERM, signal.SIGHUP)  # the second: the terminal was closed
_ALL = (*_STOP, signal.SIGINT, signal.SIGUSR2)  # the last is Slurm's, by way of submitit


@contextmanager
def heard() -> Iterator[None]:
    """Note SIGTERM and SIGHUP for :func:`check`; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: _requested.set())
        for number in _STOP
        if signal.getsignal(number) is not signal.SIG_IGN  # set by nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if _is_last.is_set() else handler)
        _requested.clear()


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
    """Whether SIGTERM has come."""
    return _requested.is_set()


def check() -> None:
    """Stop here if a stop was requested.

    Raises:
        Stopped: if it was.
    """
    if _requested.is_set():
        raise Stopped("stopped by SIGTERM")
