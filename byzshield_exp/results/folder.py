"""The folder of a run: one process holds it at a time; it refuses another configuration."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from byzshield_exp.errors import ConfigError, InUse
from byzshield_exp.files import write_atomically
from byzshield_exp.results import checkpoint
from byzshield_exp.results.recorder import flatten, read_summary

# Keys that neither change what a step computes nor name the run's folder.
FREE_KEYS = frozenset(
    {
        "output_dir", "steps", "eval_every", "checkpoint_every", "keep", "plan", "on_invalid",
        "profile", "cluster.worker_timeout", "cluster.bucket_mib", "cluster.backend",
        "cluster.server_plays",
    }
)  # fmt: skip
# These name the folder of the run, but may differ when it resumes: the data's digest is compared
# instead, as another machine keeps the data elsewhere; torchrun may start other processes.
_PLACES = frozenset({"dataset.root", "dataset.file", "cluster.num_processes"})
_ATTEMPTS, _PAUSE_S = 5, 0.05


class RunFolder:
    """The folder of a run's results.

    Attributes:
        path: the folder.
        state: ``new``, ``resumes after step n`` or ``finished``.
        finished: the summary of a finished run, else None.
        notes: warnings for the user, one line each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = "new"
        self.finished: dict[str, Any] | None = None
        self.notes: tuple[str, ...] = ()

    @contextmanager
    def open(self, config: Mapping[str, Any], data: str) -> Iterator[None]:
        """Hold the folder for one run of ``config``.

        Args:
            config: configuration of the run.
            data: digest of the run's data; empty if it is not known.

        Raises:
            ConfigError: if the folder cannot be written, another process holds it, none of its
                checkpoints can be read, or it holds another run.
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
            self.inspect(config, data)
            text = yaml.safe_dump(dict(config), sort_keys=False)
            write_atomically(self.path / "config.yaml", text.encode())
            yield

    @property
    def in_use(self) -> bool:
        """Whether another process holds the folder now.

        Raises:
            ConfigError: if the folder cannot be read.
        """
        # A shared lock: two probes at once do not take each other for a run, and the file may be
        # read-only. filelock offers neither, so the holder uses flock too.
        try:
            with (self.path / ".lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be used: {error}") from error
        return False

    def _hold(self, descriptor: int) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if attempt == _ATTEMPTS - 1:
                    raise InUse(f"{self.path} is in use by another process") from error
                time.sleep(_PAUSE_S)  # it may be a probe of in_use, which is short
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def inspect(self, config: Mapping[str, Any], data: str) -> None:
        """Find out the run's state without writing anything.

        Raises:
            ConfigError: if no checkpoint can be read, or they are of another run or other data.
        """
        saved, _, self.notes = checkpoint.newest(self.path / checkpoint.FOLDER)
        if saved is None:
            return
        keys = differing_keys(config, json.loads(saved["config"]))
        if keys:
            raise ConfigError(
                f"{self.path} holds a run with another value of {', '.join(keys)}: delete it or "
                "choose another output_dir"
            )
        if data and saved["data"] != data:
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


def is_free(key: str) -> bool:
    """Whether a dotted key neither changes a step nor names a run's folder."""
    return key in FREE_KEYS or key.partition(".")[0] in FREE_KEYS


def differing_keys(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """List the dotted keys that change a run and differ between two configurations."""
    mine, other = flatten(ours), flatten(theirs)
    return [
        key
        for key in sorted(mine.keys() | other.keys())
        if not is_free(key) and key not in _PLACES and not same(mine.get(key), other.get(key))
    ]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, where NaN equals NaN."""
    return bool(one == other) or (one != one and other != other)
