"""A request to stop (SIGTERM), heard only where a run can stop without losing anything."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from byzshield_exp.errors import Stopped

_requested = threading.Event()


@contextmanager
def heard() -> Iterator[None]:
    """Within, SIGTERM is noted for :func:`check`; only where Python lets signals be handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: _requested.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _requested.clear()


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
