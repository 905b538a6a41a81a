"""Write TensorBoard's event file, in the caller's thread.

torch's ``SummaryWriter`` writes in a thread of its own, which ends at the first disk error and
drops what it holds; from then on every call raises. On a disk of 1 MB that was full from step 15 to
24 it lost steps 16 to 40 of 40, and the last record before was cut. A writer opened anew after each
error still lost steps 16 to 24.
"""

import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from byzshield_exp.results.journal import Journal
from byzshield_exp.results.tags import description_of

_BINS = 30
_CLASSES = {
    "scalars": "DATA_CLASS_SCALAR",
    "histograms": "DATA_CLASS_TENSOR",
    "images": "DATA_CLASS_BLOB_SEQUENCE",
}
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
        self._described: set[str] = set()
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

        entries = [
            Summary.Value(tag=tag, simple_value=value, metadata=self._metadata(tag, "scalars"))
            for tag, value in values.items()
        ]
        self._add(step, wall_time, summary=Summary(value=entries))

    def add_histogram(self, tag: str, numbers: Sequence[float], step: int) -> None:
        """Add the distribution of some numbers; those that are not finite are left out."""
        import numpy as np
        from torch.utils.tensorboard.summary import histogram

        values = np.array([number for number in numbers if np.isfinite(number)])
        if len(values):
            margin = max(np.ptp(values), 1e-6 * abs(values).max(), 1e-12) / 100
            edges = np.linspace(values.min() - margin, values.max() + margin, _BINS + 1)
            summary = histogram(tag, values, edges)
            if (metadata := self._metadata(tag, "histograms")) is not None:
                summary.value[0].metadata.CopyFrom(metadata)
            self._add(step, summary=summary)

    def add_picture(self, tag: str, png: bytes, step: int) -> None:
        """Add a picture."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = Image.open(BytesIO(png)).size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        entry = Summary.Value(tag=tag, image=image, metadata=self._metadata(tag, "images"))
        self._add(step, summary=Summary(value=[entry]))

    def add_summary(self, summary: Any, step: int) -> None:
        """Add a ``Summary`` that ``torch.utils.tensorboard.summary`` made."""
        self._add(step, summary=summary)

    def _metadata(self, tag: str, plugin: str) -> Any:
        """Describe a tag where it is first written; TensorBoard reads no later description."""
        from tensorboard.compat.proto import summary_pb2 as proto

        if tag in self._described:
            return None
        self._described.add(tag)
        return proto.SummaryMetadata(
            plugin_data=proto.SummaryMetadata.PluginData(plugin_name=plugin),
            data_class=getattr(
                proto, _CLASSES[plugin]
            ),  # else the fast loader reads no description
            summary_description=description_of(tag),
        )

    def _add(self, step: int, wall_time: float | None = None, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        framed = BytesIO()
        now = time.time() if wall_time is None else wall_time
        event = Event(wall_time=now, step=step, **content)
        RecordWriter(framed).write(event.SerializeToString())
        self.journal.add(framed.getvalue())
