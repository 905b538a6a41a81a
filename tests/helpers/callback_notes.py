"""A callback of Hydra's that writes down what it is told, for tests."""

import json
import os
from pathlib import Path

CALLBACK = '''
"""A callback that appends a line of JSON for each call."""

import json
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback


class Notes(Callback):
    def __init__(self, path):
        self.path = Path(path)

    def note(self, what, config, **more):
        task = list(HydraConfig.get().overrides.task)
        said = {"what": what, "pid": os.getpid(), "q": config.q, "task": task, **more}
        with self.path.open("a") as file:
            file.write(json.dumps(said) + "\\\\n")

    def on_job_start(self, config, *, task_function, **kwargs):
        self.note("start", config, task_function=task_function.__name__)

    def on_job_end(self, config, job_return, **kwargs):
        self.note(
            "end", config, status=job_return.status.name, value=str(job_return._return_value),
            folder=job_return.cfg.get("folder"), own_q=job_return.cfg.q,
            output_dir=job_return.hydra_cfg.hydra.runtime.output_dir,
        )
'''


def install(folder: Path) -> str:
    """Write the callback's module into a folder; return the override that asks for it."""
    (folder / "callback_written.py").write_text(CALLBACK.replace("\\\\n", "\\n"))
    path = folder / "notes.jsonl"
    return f"+hydra.callbacks.notes={{_target_: callback_written.Notes, path: '{path}'}}"


def noted(folder: Path) -> list[dict]:
    """What was written down, in order."""
    path = folder / "notes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_here(note: dict) -> bool:
    """Whether a note was made in this process."""
    return note["pid"] == os.getpid()
