"""The memory of this process, as Linux counts it."""

from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Memory:
    """Memory on top of what there was at the beginning; 0 where the system does not say.

    Resident pages, also those that were given back since: the largest sum counts.
    """

    def __init__(self) -> None:
        self._before = _bytes("VmRSS")
        if self._before:
            try:
                _CLEAR.write_text("5")  # the peak starts from here
            except OSError:
                self._before = max(self._before, _bytes("VmHWM"))

    @property
    def peak(self) -> int:
        """Bytes."""
        return max(0, _bytes("VmHWM") - self._before)


def _bytes(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
