"""Keep ``status.json``: how far a run got, for readers outside the run."""

import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from byzshield_exp.errors import ConfigError, RunError, Stopped, located, place_of, typed
from byzshield_exp.files import write_atomically
from byzshield_exp.notices import complain, note

STATUS = "status.json"
LOG = "log.txt"


def read_status(folder: Path) -> dict[str, Any]:
    """Read ``status.json``; empty if there is none that can be read."""
    with suppress(OSError, ValueError):
        status = json.loads((folder / STATUS).read_text())
        if isinstance(status, dict):
            return status
    return {}


def write_status(folder: Path, **entries: Any) -> None:
    """Change some entries of ``status.json``.

    Raises:
        OSError: if the file cannot be written.
    """
    content = json.dumps({**read_status(folder), **entries}, indent=2) + "\n"
    write_atomically(folder / STATUS, content.encode(), shared=True)


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Record in ``status.json`` that a run is running, and how it ended.

    The entries: ``state`` (running, done, failed, or stopped: the same command resumes), ``error``
    and ``rank`` of a failure, ``log`` (its path), ``attempts`` (starts), ``host``, ``pid``,
    ``started`` and ``ended`` (UTC), ``seconds`` (of all attempts). A run whose process was killed
    stays ``running``; its folder is then free.

    Raises:
        OSError: if the file cannot be written at the start. At the end that is ignored, so as not
            to hide how the run ended.
    """
    before, start = read_status(folder), time.monotonic()
    write_status(
        folder, state="running", error=None, rank=None, log=str(folder / LOG),
        attempts=before.get("attempts", 0) + 1, host=socket.gethostname(), pid=os.getpid(),
        started=_now(), ended=None,
    )  # fmt: skip
    end: dict[str, Any] = {"state": "stopped"}
    try:
        yield
        end = {"state": "done"}
    except Stopped as error:
        end["error"] = str(error)
        note(str(error))
        raise
    except Exception as error:
        is_ours = isinstance(error, RunError | ConfigError)
        if not is_ours and not place_of(error):
            complain(traceback.format_exc())
        elif not is_ours or error.__cause__ is not None:
            note(traceback.format_exc())
        line = located(error) if is_ours or isinstance(error, OSError) else typed(error)
        end = {"state": "failed", "error": line, "rank": getattr(error, "rank", 0)}
        note(f"failed: {line}")
        raise
    finally:
        seconds = before.get("seconds", 0.0) + time.monotonic() - start
        with suppress(OSError):
            write_status(folder, **end, ended=_now(), seconds=round(seconds, 3))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
