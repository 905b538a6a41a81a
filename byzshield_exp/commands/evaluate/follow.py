"""Evaluate the checkpoints of a run, on this machine or another one, as they appear."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

import torch
import yaml

from byzshield_exp.commands.evaluate.records import Evaluations
from byzshield_exp.commands.evaluate.settings import Settings
from byzshield_exp.errors import ConfigError, RunError, first_line
from byzshield_exp.networks import parameters_sha256
from byzshield_exp.notices import say, warn
from byzshield_exp.results import checkpoint
from byzshield_exp.results.recorder import read_summary
from byzshield_exp.training.accuracy import Evaluation, evaluate
from byzshield_exp.training.task import LearningTask, build_task

_CONFIG = "config.yaml"
_TASK_KEYS = ("dataset", "network", "device", "threads", "seed", "choices")
_TRIES = 3  # attempts to read a checkpoint of a finished run


def evaluate_run(settings: Settings) -> None:
    """Evaluate the checkpoints that exist, or with ``follow`` all that appear.

    Raises:
        ConfigError: if the run or its data cannot be read, or the output cannot be written.
        RunError: if there is no checkpoint, one cannot be read, a result cannot be written, or
            nothing new appears within the timeout.
    """
    config = _configuration(settings)
    torch.set_num_threads(config["threads"])
    task = build_task(config)
    records = Evaluations(settings.output)
    say(
        f"{settings.run}: d={len(task.flat.params):,}, {len(task.dataset.test_labels)} test "
        f"pictures, {len(records.done)} checkpoints evaluated before"
    )
    try:
        _Evaluator(settings, task, records).run()
    finally:
        lost = records.close()
    if lost:
        raise RunError(f"output={settings.output} could not be written: {lost} results are lost")
    say(f"done: {len(records.done)} checkpoints evaluated, results in {settings.output}")


def _configuration(settings: Settings) -> dict[str, Any]:
    """Read the run's own configuration, with the changes for this machine."""
    path, patience = settings.run / _CONFIG, _Patience(settings)
    if not path.exists() and settings.follow:
        say(f"waiting for {path}")
    while not path.exists():
        if not settings.follow:
            raise ConfigError(f"run={settings.run} is no folder of a run: it has no {_CONFIG}")
        patience.wait()
    try:
        config = yaml.safe_load(path.read_text())
        config["device"] = settings.device or config["device"]
        if settings.root is not None:
            config["dataset"]["root"] = settings.root
        return {key: config[key] for key in _TASK_KEYS}
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no configuration of a run: {first_line(error)}") from error


class _Patience:
    """Waits between two looks at the folder; gives up after ``timeout`` with nothing new."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reset_at = monotonic()

    def reset(self) -> None:
        """Start the timeout again, after something new."""
        self._reset_at = monotonic()

    def wait(self) -> None:
        timeout, pause = self._settings.timeout, self._settings.every
        if timeout is not None:
            left = self._reset_at + timeout - monotonic()
            if left <= 0:
                raise RunError(f"nothing new in {self._settings.run} for timeout={timeout:g} s")
            pause = min(pause, left)
        sleep(pause)


class _Evaluator:
    def __init__(self, settings: Settings, task: LearningTask, records: Evaluations) -> None:
        self._settings, self._task, self._records = settings, task, records
        self._folder = settings.run / checkpoint.FOLDER
        self._failures: dict[Path, int] = {}  # how often a checkpoint could not be read

    def run(self) -> None:
        patience = _Patience(self._settings)
        while True:
            summary = read_summary(self._settings.run)  # first: a run writes it last
            found = checkpoint.checkpoints(self._folder)
            todo = [path for path in found if checkpoint.step_of(path) not in self._records.done]
            if any([self._evaluate(path) for path in todo]):
                patience.reset()
                continue  # more may have appeared
            bad = [path for path in todo if path in self._failures]
            if not self._settings.follow:
                self._check_end(found, bad)
                return
            if self._is_over(summary, found) and (not todo or self._all_unreadable(bad)):
                self._check_end(found, bad)
                return
            self._records.retry(max(self._records.done, default=0))
            patience.wait()

    def _is_over(self, summary: Mapping[str, Any] | None, found: list[Path]) -> bool:
        steps = {checkpoint.step_of(path) for path in found} | self._records.done
        return summary is not None and summary["steps"] == max(steps, default=None)

    def _all_unreadable(self, bad: list[Path]) -> bool:
        return bool(bad) and all(self._failures[path] >= _TRIES for path in bad)

    def _check_end(self, found: list[Path], bad: list[Path]) -> None:
        if bad:
            raise RunError(
                f"{len(bad)} of {len(found)} checkpoints cannot be read: "
                f"{', '.join(path.name for path in bad)}"
            )
        if not found:
            raise RunError(f"run={self._settings.run} has no checkpoint (follow=true waits)")

    def _evaluate(self, path: Path) -> bool:
        """Evaluate one checkpoint; return whether it could be read."""
        try:
            saved = checkpoint.load(path)
        except ConfigError as error:
            self._count_failure(path, error)
            return False
        self._load_into_network(path, saved)
        start = perf_counter()
        result = evaluate(self._task.network, self._task.dataset.chunks("test"))
        seconds = perf_counter() - start
        self._record(path, saved["step"], result, seconds)
        top5 = "" if result.top5 is None else f"  top-5 {result.top5:.4f}"
        say(
            f"step {saved['step']}  test loss {result.loss:.4f}  test accuracy "
            f"{result.accuracy:.4f}{top5}  ({seconds:.2f} s)"
        )
        return True

    def _load_into_network(self, path: Path, saved: Mapping[str, Any]) -> None:
        """Copy a checkpoint into the network.

        Raises:
            RunError: if the checkpoint is of another run.
        """
        _, params, statistics = self._task.flat
        sizes = len(saved["params"]), len(saved["statistics"])
        if sizes != (len(params), len(statistics)) or saved["step"] != checkpoint.step_of(path):
            raise RunError(
                f"{path} is not of this run: step {saved['step']}, d={len(saved['params']):,}"
            )
        params.copy_(saved["params"])
        statistics.copy_(saved["statistics"])

    def _record(self, path: Path, step: int, result: Evaluation, seconds: float) -> None:
        _, params, statistics = self._task.flat
        self._records.add(
            {
                "step": step,
                "test_loss": result.loss,
                "test_accuracy": result.accuracy,
                "test_top5": result.top5,
                "num_pictures": len(self._task.dataset.test_labels),
                "parameters_sha256": parameters_sha256(params),
                "buffers_sha256": parameters_sha256(statistics),
                "seconds": seconds,
                "checkpoint": str(path.relative_to(self._settings.run)),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )

    def _count_failure(self, path: Path, error: ConfigError) -> None:
        if not path.exists():
            warn(f"{path} was deleted before it could be read")
            return
        self._failures[path] = self._failures.get(path, 0) + 1
        if self._failures[path] == 1:
            warn(str(error))
