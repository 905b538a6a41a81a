"""The memory of this process, as Linux counts it."""

import ctypes
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc keep what is freed, as every file's gradient needs the same memory again.

    glibc gives it back to the system; new pages took a tenth of a step's CPU seconds in ranks with
    few files. Elsewhere than with glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)


class Memory:
    """Memory on top of what there was at the beginning; 0 where the system does not say.

    Resident pages, also those that were given back since: the largest sum counts. Pages of files,
    which are code, do not: the system may drop them.
    """

    def __init__(self) -> None:
        self._before, self._files_before = _bytes("VmRSS"), _bytes("RssFile")
        if self._before:
            try:
                _CLEAR.write_text("5")  # the peak starts from here
            except OSError:
                self._before = max(self._before, _bytes("VmHWM"))

    @property
    def peak(self) -> int:
        """Bytes."""
        code = max(0, _bytes("RssFile") - self._files_before)
        return max(0, _bytes("VmHWM") - self._before - code)


def _bytes(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
