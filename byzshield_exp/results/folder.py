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
from byzshield_exp.results import checkpoint, leftovers, links
from byzshield_exp.results.recorder import flatten, read_summary
from byzshield_exp.results.sources import changed_sources

# Keys that neither change what a step computes nor name the run's folder.
FREE_KEYS = frozenset(
    {
        "output_dir", "steps", "epochs", "eval_every", "checkpoint_every", "keep", "plan",
        "on_invalid", "profile", "cluster.worker_timeout", "cluster.bucket_mib", "cluster.backend",
        "cluster.server_plays", "overwrite", "curve", "histograms", "command",
    }
)  # fmt: skip
_PLACES = frozenset({"dataset.root", "dataset.file"})
_PROCESSES = "cluster.num_processes"  # names the folder; torchrun may start others when it resumes
_WAYS_OUT = "start anew with overwrite=true, or choose another output_dir"
_ATTEMPTS, _PAUSE_S = 5, 0.05


class RunFolder:
    """The folder of a run's results.

    Attributes:
        path: the folder.
        state: ``new``, ``resumes after step n`` or ``finished``.
        anew: why results that are there do not count; empty: they do, or there are none.
        finished: the summary of a finished run, else None.
        notes: warnings for the user, one line each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state, self.anew = "new", ""
        self.finished: dict[str, Any] | None = None
        self.notes: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The state for the user, with why a run starts anew."""
        return f"{self.state} ({self.anew})" if self.anew else self.state

    @contextmanager
    def open(self, config: Mapping[str, Any], data: str, code: Mapping[str, str]) -> Iterator[None]:
        """Hold the folder for one run of ``config``; remove results that do not count.

        Args:
            config: configuration of the run.
            data: digest of the run's data; empty if it is not known.
            code: digests of the user's own code, by file.

        Raises:
            ConfigError: if the folder cannot be written, another process holds it, none of its
                checkpoints can be read, or it holds another run.
        """
        with self._held(config):
            self.inspect(config, data, code)
            if not self.finished:
                self._make_room(bool(config["overwrite"]))
            self._write_config(config)
            yield

    def link_to(
        self, run: Path, config: Mapping[str, Any], data: str, code: Mapping[str, str]
    ) -> None:
        """Make this the folder of a run that cannot differ from another one: of links to it.

        Nothing happens where it has results of its own that count.

        Args:
            run: the folder of the other one, beside this one.
            config: as of :meth:`open`.
            data: as of :meth:`open`.
            code: as of :meth:`open`.

        Raises:
            ConfigError: as :meth:`open`.
            OSError: if a link cannot be made.
        """
        with self._held(config):
            self.inspect(config, data, code)
            if self.state == "new":
                self._make_room(is_removed=config["overwrite"] or not self.anew)
            elif not links.same_as(self.path):
                return
            self._write_config(config)
            links.link(self.path, run)

    def _make_room(self, is_removed: bool) -> None:
        try:
            links.unlink(self.path)
            if is_removed:
                leftovers.remove(self.path)
            elif self.anew:
                leftovers.set_aside(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be cleared: {error}") from error

    def _write_config(self, config: Mapping[str, Any]) -> None:
        text = yaml.safe_dump({**config, "overwrite": False}, sort_keys=False)
        write_atomically(self.path / "config.yaml", text.encode())

    @contextmanager
    def _held(self, config: Mapping[str, Any]) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a+")
        except OSError as error:
            raise ConfigError(
                f"output_dir={config['output_dir']} cannot be written: {error}"
            ) from error
        with lock:
            self._hold(lock.fileno())
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

    def inspect(self, config: Mapping[str, Any], data: str, code: Mapping[str, str]) -> None:
        """Find out the run's state without writing anything.

        Args:
            config: as of :meth:`open`.
            data: as of :meth:`open`.
            code: as of :meth:`open`.

        Raises:
            ConfigError: if no checkpoint can be read, or they are of another run or other data.
        """
        if config["overwrite"]:
            self.anew = "overwrite=true" if leftovers.is_written(self.path) else ""
            return
        name = links.same_as(self.path)
        folder = self.path.parent / name if name else self.path
        saved, _, self.notes = checkpoint.newest(folder / checkpoint.FOLDER)
        if saved is None:
            return
        theirs, changed = json.loads(saved["config"]), changed_sources(saved.get("code", {}), code)
        keys = differing_keys(links.essence(config), links.essence(theirs))
        is_other = bool(data) and saved["data"] != data
        if name:
            if not keys and not is_other and not changed:
                self._find_end(folder, saved, config["steps"])
            return
        self._refuse(differing_keys(config, theirs), is_other)
        if changed:
            self.anew = f"its code changed: {changed}"
            return
        done, diverged = saved["step"], saved["diverged_at_step"] is not None
        if done > config["steps"] and not diverged:
            raise ConfigError(
                f"steps={config['steps']}: {self.path} has done {done} steps already: ask for at "
                f"least {done}, or {_WAYS_OUT}"
            )
        self._find_end(folder, saved, config["steps"])
        if not self.finished:
            self.state = f"resumes after step {done}"

    def _refuse(self, keys: list[str], is_other: bool) -> None:
        if keys:
            raise ConfigError(
                f"{self.path} holds a run with another value of {', '.join(keys)}: {_WAYS_OUT}"
            )
        if is_other:
            raise ConfigError(
                f"{self.path} was trained on other data than dataset.root or dataset.file hold "
                f"now: give those back, or {_WAYS_OUT}"
            )

    def _find_end(self, folder: Path, saved: Mapping[str, Any], steps: int) -> None:
        """Note that the run is finished, if its newest checkpoint and its summary say so."""
        summary, done = read_summary(folder), saved["step"]
        is_over = done == steps or saved["diverged_at_step"] is not None
        if is_over and summary is not None and summary["steps"] == done:
            self.state, self.finished = "finished", summary


def is_free(key: str) -> bool:
    """Whether a dotted key neither changes a step nor names a run's folder."""
    return key in FREE_KEYS or key.partition(".")[0] in FREE_KEYS


def differing_keys(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """List the dotted keys that change a run and differ between two configurations."""
    mine, other = flatten(ours), flatten(theirs)
    return [
        key
        for key in sorted(mine.keys() | other.keys())
        if not is_free(key)
        and key != _PROCESSES
        and not is_place(key, mine.get(key), other.get(key))
        and not same(mine.get(key), other.get(key))
    ]


def is_place(key: str, *values: Any) -> bool:
    """Whether a dotted key says where data lie: their digest tells runs apart instead."""
    is_path = any(isinstance(value, str) and "/" in value for value in values)
    return key in _PLACES or (key.startswith("dataset.") and is_path)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, where NaN equals NaN."""
    return bool(one == other) or (one != one and other != other)
