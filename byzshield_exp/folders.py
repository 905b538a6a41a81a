"""The folder of a run: one process at a time, one configuration for ever."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from byzshield_exp import checkpoint
from byzshield_exp.errors import ConfigError
from byzshield_exp.files import write_atomically
from byzshield_exp.recorder import read_summary


class RunFolder:
    """Where a run's results are.

    Attributes:
        path: the folder.
        state: ``new``, ``resumes after step n`` or ``finished``.
        finished: the summary, where there is nothing left to do.
        notes: one warning a line, for a person.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = "new"
        self.finished: dict[str, Any] | None = None
        self.notes: tuple[str, ...] = ()

    @contextmanager
    def open(
        self,
        config: Mapping[str, Any],
        differing: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]],
        data: str,
    ) -> Iterator[None]:
        """Hold the folder for one run of ``config``.

        Args:
            config: of the run to do.
            differing: the keys in which two configurations are different runs.
            data: the digest of the run's data.

        Raises:
            ConfigError: if it cannot be written, another process holds it, none of its checkpoints
                can be read, or it holds another run.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a+")
        except OSError as error:
            raise ConfigError(
                f"output_dir={config['output_dir']} cannot be written: {error}"
            ) from error
        with lock:
            self._hold(lock.fileno())
            self.look(config, differing, data)
            text = yaml.safe_dump(dict(config), sort_keys=False)
            write_atomically(self.path / "config.yaml", text.encode())
            yield

    def _hold(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{self.path} is in use by another process") from error
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def look(
        self,
        config: Mapping[str, Any],
        differing: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]],
        data: str,
    ) -> None:
        """Find out the state without writing anything.

        Raises:
            ConfigError: if none of its checkpoints can be read, or they are of another run or data.
        """
        saved, _, self.notes = checkpoint.newest(self.path / checkpoint.FOLDER)
        if saved is None:
            return
        keys = differing(config, json.loads(saved["config"]))
        if keys:
            raise ConfigError(
                f"{self.path} holds a run with another value of {', '.join(keys)}: delete it or "
                "choose another output_dir"
            )
        if saved["data"] != data:
            raise ConfigError(
                f"{self.path} was trained on other data than dataset.root or dataset.file hold "
                "now: give those back, delete it or choose another output_dir"
            )
        done, diverged = saved["step"], saved["diverged_at_step"] is not None
        if done > config["steps"] and not diverged:
            raise ConfigError(
                f"steps={config['steps']}: {self.path} has done {done} steps already: ask for at "
                f"least {done} or choose another output_dir"
            )
        summary = read_summary(self.path)
        is_over = done == config["steps"] or diverged
        if is_over and summary is not None and summary["steps"] == done:
            self.state, self.finished = "finished", summary
        else:
            self.state = f"resumes after step {done}"
