"""Write TensorBoard's event file, in the caller's thread.

torch's ``SummaryWriter`` writes in a thread of its own. That thread ends at the first disk error,
with a traceback, and loses what it holds.
"""

import itertools
import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from byzshield_exp.results.journal import Journal

_numbers = itertools.count()


class Events:
    """Scalars and other summaries by step, as TensorBoard reads them.

    Args of the constructor:
        folder: the folder of the file.
        purge_step: TensorBoard drops the entries of earlier files from this step on.
        name: end of the file's name; None: a unique one.

    Attributes:
        journal: the file.
    """

    def __init__(
        self, folder: Path, purge_step: int | None = None, name: str | None = None
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # slow; workers never need it

        own = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.journal = Journal(folder / f"events.out.tfevents.{name or own}")
        self._add(0, file_version="brain.Event:2")
        if purge_step is not None:
            self._add(purge_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalars(
        self, values: Mapping[str, float], step: int, wall_time: float | None = None
    ) -> None:
        """Add the values of some tags at a step.

        Args:
            values: by tag.
            step: of the values.
            wall_time: seconds since 1970; None: now.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(step, wall_time, summary=Summary(value=entries))

    def add_summary(self, summary: Any, step: int) -> None:
        """Add a ``Summary`` that ``torch.utils.tensorboard.summary`` made."""
        self._add(step, summary=summary)

    def _add(self, step: int, wall_time: float | None = None, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        framed = BytesIO()
        now = time.time() if wall_time is None else wall_time
        event = Event(wall_time=now, step=step, **content)
        RecordWriter(framed).write(event.SerializeToString())
        self.journal.add(framed.getvalue())
