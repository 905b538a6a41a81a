"""TensorBoard's event file.

Written in the caller's thread, because torch's ``SummaryWriter`` writes in one of its own, which
ends at the first error of the disk with a traceback and what it held.
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
    """Scalars and other summaries, by step.

    Args of the constructor:
        folder: where the file is made.
        purge_step: TensorBoard forgets what an earlier file has from this step on.
        name: ends the name of the file; None: one that no other file has.

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
        """The values of some tags at a step; the time in seconds since 1970 is now by default."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(step, wall_time, summary=Summary(value=entries))

    def add_summary(self, summary: Any, step: int) -> None:
        """A ``Summary``, as ``torch.utils.tensorboard.summary`` makes them."""
        self._add(step, summary=summary)

    def _add(self, step: int, wall_time: float | None = None, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        framed = BytesIO()
        now = time.time() if wall_time is None else wall_time
        event = Event(wall_time=now, step=step, **content)
        RecordWriter(framed).write(event.SerializeToString())
        self.journal.add(framed.getvalue())
