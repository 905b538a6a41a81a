"""A request to stop (SIGTERM, SIGHUP), heard only where a run can stop without losing anything."""

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
    """Within, SIGTERM and SIGHUP are noted for :func:`check`; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: _requested.set())
        for number in _STOP
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if _is_last.is_set() else handler)
        _requested.clear()


@contextmanager
def ignored() -> Iterator[None]:
    """Within, all requests are ignored, and for ever by processes that are started in it."""
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
    """This process ends after :func:`heard`: what comes then must not end it in its last words."""
    _is_last.set()


def request() -> None:
    """Ask to stop, as SIGTERM does."""
    _requested.set()


def requested() -> bool:
    """Whether SIGTERM has come."""
    return _requested.is_set()


def check() -> None:
    """Stop here, if that was asked for.

    Raises:
        Stopped: then.
    """
    if _requested.is_set():
        raise Stopped("stopped by SIGTERM")
