"""What rank 0 keeps between steps: optimizer, records, checkpoints, the end of the run."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from jaxtyping import Float
from torch import Tensor

from byzshield_exp.errors import RunError, Stopped
from byzshield_exp.notices import warn
from byzshield_exp.results.journal import Outage
from byzshield_exp.results.recorder import METRICS, SUMMARY, Recorder, read_metrics
from byzshield_exp.results.saving import Saver, insist
from byzshield_exp.results.sources import own_sources
from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.accuracy import evaluate
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.memory import Memory
from byzshield_exp.training.progress import Progress
from byzshield_exp.training.protocol import Report, TrainingProtocol
from byzshield_exp.training.summary import facts_of
from byzshield_exp.training.trace import start_trace
from byzshield_exp.training.updates import Updates


class Learner:
    """Applies updates, evaluates, records and checkpoints; resumes from the newest checkpoint.

    Attributes:
        updates: optimizer and schedule.
    """

    def __init__(
        self,
        experiment: Experiment,
        protocol: TrainingProtocol,
        config: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self._experiment, self._protocol = experiment, protocol
        self._config, self._folder = config, folder
        self._code = own_sources(config)
        self.updates = Updates(experiment, config["on_nonfinite"] == "skip_step")
        self.updates.make()
        self._done = 0
        self._first = 0
        self._best = 0.0
        self._accuracy: float | None = None
        self._diverged: int | None = None
        self._saver = Saver(folder, config["keep"])
        self._bytes_in = 0  # per step
        self._files_computed: list[float] = []  # per rank and step
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._recorder = Recorder(folder, self._done, config)
        self._progress = Progress(self._done, config["steps"], experiment.dataset.eval_split)
        self._trace = start_trace(folder / "profile") if config["profile"] is True else None
        self._memory = Memory()
        self._tick = perf_counter()

    @property
    def next_step(self) -> int | None:
        """The step to do next, None when the run is over."""
        over = self._done >= self._config["steps"] or self._diverged is not None
        return None if over else self._done

    def finish_step(self, update: Float[Tensor, " d"], report: Report) -> None:
        """Apply an update, record the step, evaluate and checkpoint when due.

        Raises:
            RunError: at a non-finite update with ``on_nonfinite=stop``.
            Stopped: when the process is asked to stop.
        """
        lr, start = self.updates.lr, perf_counter()
        self._done += 1
        self._bytes_in = report.bytes_in
        self._files_computed = [n / (self._done - self._first) for n in report.files_computed]
        is_applied = self._apply(update, report)
        end = perf_counter()
        seconds = {**report.seconds, "update": end - start, "total": end - self._tick}
        for event in report.events:
            warn(event)
        record = {
            "step": self._done, "loss": report.loss, "lr": lr, "skipped": not is_applied,
            "seconds": seconds, **report.record(),
        }  # fmt: skip
        self._record_evaluated(record)
        if self._done % self._config["checkpoint_every"] == 0 or self._saver.is_overdue:
            self._saver.save(self._done, self._state)
        self._progress.advance(record)
        if self._trace:
            self._trace.step()
        self._tick = perf_counter()

    def finish(self) -> dict[str, Any]:
        """Evaluate and checkpoint if that is still to be done, and write the summary.

        Raises:
            RunError: if the disk does not take them in a minute.
        """
        if self._accuracy is None:
            self._evaluate()
        if self._saver.saved_at != self._done:
            self._saver.save_last(self._done, self._state)
        insist(Outage(f"{self._folder / METRICS}"), self._done, self._recorder.sync)
        summary = self._summary()
        outage = Outage(f"{self._folder / SUMMARY}")
        metric = f"final_{self._experiment.dataset.eval_split}_accuracy"
        insist(outage, self._done, lambda: self._recorder.finish(summary, metric))
        return summary

    def save_early(self) -> str:
        """Save what was done before the run ends early; returns a line about it."""
        for event in self._protocol.take_events():
            warn(event)
        if self._saver.saved_at != self._done:
            self._saver.save(self._done, self._state)
        if self._saver.saved_at != self._done:
            return "the last steps could not be saved, the same command resumes before them"
        return f"{self._done} steps are in a checkpoint, the same command resumes"

    def close(self) -> None:
        """Close the files and the progress bar."""
        if self._trace:
            self._trace.stop()
        self._progress.close()
        self._recorder.close()

    def _record_evaluated(self, record: dict[str, Any]) -> None:
        """Evaluate where that is due, and write the record.

        Raises:
            Stopped: when the process is asked to stop; the step is done all the same.
        """
        stopped = None
        if self._done % self._config["eval_every"] == 0 or self.next_step is None:
            try:
                record |= self._evaluate()
                self._progress.evaluated(record)
            except Stopped as error:
                stopped = error
        self._recorder.step(record)
        if stopped is not None:
            raise stopped

    def _apply(self, update: Float[Tensor, " d"], report: Report) -> bool:
        params = self._experiment.params
        if not is_finite(update):
            self._on_nonfinite(
                report.nonfinite or f"step {self._done}: the update became NaN or Inf"
            )
        if not self.updates.apply(update, report.statistics):
            return False
        self._accuracy = None
        if self._diverged is None and not is_finite(params):
            self._diverged = self._done  # there is no step back, whatever on_nonfinite says
            self._on_nonfinite(f"step {self._done}: the parameters became NaN or Inf")
        return True

    def _on_nonfinite(self, what: str) -> None:
        policy = self._config["on_nonfinite"]
        if policy == "stop":
            raise RunError(f"{what} (on_nonfinite=stop)")
        warn(f"{what} (on_nonfinite={policy})")
        if policy == "finish":
            self._diverged = self._done

    def _evaluate(self) -> dict[str, float]:
        data = self._experiment.dataset
        self._protocol.before_evaluation()
        result = evaluate(self._experiment.network, data.chunks(data.eval_split))
        self._accuracy, self._best = result.accuracy, max(self._best, result.accuracy)
        return {
            f"{data.eval_split}_accuracy": result.accuracy,
            f"{data.eval_split}_loss": result.loss,
        }

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds; the records of its steps are on the disk before it."""
        self._recorder.sync()
        return {
            "step": self._done,
            "data": self._experiment.dataset.digest.hex(),
            "code": self._code,
            "params": self._experiment.params,
            "statistics": self._experiment.flat.statistics,
            **self.updates.state,
            "state": self._protocol.state,
            "best_accuracy": self._best,
            "diverged_at_step": self._diverged,
            "bytes_in": self._bytes_in,
            "files_computed": self._files_computed,
            "config": json.dumps(self._config),
        }

    def _resume(self) -> None:
        saved = self._saver.newest()
        if saved is None:
            return
        self._experiment.params.copy_(saved["params"])
        self._experiment.flat.statistics.copy_(saved["statistics"])
        self.updates.load(saved)
        state, params = self._protocol.state, self._experiment.params
        for name, value in saved["state"].items():
            state[name] = value.to(state.get(name, params).device)
        self._best, self._diverged = saved["best_accuracy"], saved["diverged_at_step"]
        self._bytes_in, self._files_computed = saved["bytes_in"], saved["files_computed"]
        self._done = self._first = saved["step"]

    def _summary(self) -> dict[str, Any]:
        split = self._experiment.dataset.eval_split
        seconds = [record["seconds"]["total"] for record in read_metrics(self._folder)]
        return {
            f"final_{split}_accuracy": self._accuracy,
            f"best_{split}_accuracy": self._best,
            "steps": self._done,
            "seconds_per_step": median(seconds or [0.0]),
            **facts_of(self._experiment, self._done),
            **self._protocol.facts(),
            "bytes_in_per_step": self._bytes_in,
            "server_memory_bytes": self._memory.peak,
            "files_computed": [int(n) if n == int(n) else n for n in self._files_computed],
            "diverged_at_step": self._diverged,
        }
