"""What the server keeps between steps: optimizer, records, checkpoints, the end of the run."""

import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.errors import RunError, Stopped
from byzshield_exp.networks import parameters_sha256
from byzshield_exp.notices import warn
from byzshield_exp.results import checkpoint
from byzshield_exp.results.journal import Outage
from byzshield_exp.results.recorder import METRICS, SUMMARY, Recorder, read_metrics
from byzshield_exp.training.accuracy import evaluate
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.memory import Memory
from byzshield_exp.training.progress import Progress
from byzshield_exp.training.protocol import Report, TrainingProtocol

PATIENCE_S = 60.0  # how long the end of a run waits for a disk that takes its results
_RETRY_SHARE = 0.1  # of the time may go into checkpoints that cannot be written ...
_LONGEST_PAUSE_S = 60.0  # ... but one is tried at least so often


class Learner:
    """Applies updates, evaluates, records and checkpoints; resumes from the newest checkpoint."""

    def __init__(
        self,
        experiment: Experiment,
        protocol: TrainingProtocol,
        config: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self._experiment, self._protocol = experiment, protocol
        self._config, self._folder = config, folder
        self._optimizer, self._scheduler = experiment.make_optimizer(experiment.params)
        self._done = 0
        self._first = 0
        self._best = 0.0
        self._accuracy: float | None = None
        self._diverged: int | None = None
        self._saved_at: int | None = None
        self._damaged: tuple[Path, ...] = ()
        self._retry_at: float | None = None  # a checkpoint is overdue
        self._checkpoints = folder / checkpoint.FOLDER
        self._saving = Outage(f"the checkpoint in {self._checkpoints}")
        self._bytes_in = 0  # per step
        self._files_computed: list[float] = []  # per rank and step
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._recorder = Recorder(folder, self._done, config)
        self._progress = Progress(self._done, config["steps"], experiment.dataset.eval_split)
        self._profile = self._start_profile()
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
        lr = self._optimizer.param_groups[0]["lr"]
        start = perf_counter()
        self._done += 1
        self._bytes_in = report.bytes_in
        self._files_computed = [n / (self._done - self._first) for n in report.files_computed]
        applied = self._apply(update, report)
        end = perf_counter()
        for event in report.events:
            warn(event)
        record: dict[str, Any] = {
            "step": self._done,
            "loss": report.loss,
            "lr": lr,
            "byzantine": report.byzantine,
            **report.table,
            "bytes_in": report.bytes_in,
            "skipped": not applied,
            "seconds": {**report.seconds, "update": end - start, "total": end - self._tick},
        }
        if report.events:
            record["events"] = report.events
        if report.profile is not None:
            record["profile"] = report.profile
        stopped = None
        if self._done % self._config["eval_every"] == 0 or self.next_step is None:
            try:
                record |= self._evaluate()
                self._progress.evaluated(record)
            except Stopped as error:
                stopped = error  # the step is done all the same
        self._recorder.step(record)
        if stopped is not None:
            raise stopped
        if self._done % self._config["checkpoint_every"] == 0 or self._is_overdue():
            self._save()
        self._progress.advance(record)
        if self._profile:
            self._profile.step()
        self._tick = perf_counter()

    def finish(self) -> dict[str, Any]:
        """Evaluate and checkpoint if that is still to be done, and write the summary.

        Raises:
            RunError: if the disk does not take them within ``PATIENCE_S``.
        """
        if self._accuracy is None:
            self._evaluate()
        if self._saved_at != self._done:
            self._insist(self._saving, self._write_checkpoint)
        self._insist(Outage(f"{self._folder / METRICS}"), self._recorder.sync)
        summary = self._summary()
        outage = Outage(f"{self._folder / SUMMARY}")
        metric = f"final_{self._experiment.dataset.eval_split}_accuracy"
        self._insist(outage, lambda: self._recorder.finish(summary, metric))
        return summary

    def save_early(self) -> str:
        """Save what was done before the run ends early; returns a line about it."""
        for event in self._protocol.take_events():
            warn(event)
        if self._saved_at != self._done:
            self._save()
        if self._saved_at != self._done:
            return "the last steps could not be saved, the same command resumes before them"
        return f"{self._done} steps are in a checkpoint, the same command resumes"

    def close(self) -> None:
        """Close the files and the progress bar."""
        if self._profile:
            self._profile.stop()
        self._progress.close()
        self._recorder.close()

    def _start_profile(self) -> torch.profiler.profile | None:
        """A trace of steps 3 to 5 on the server, for TensorBoard's profile page."""
        if self._config["profile"] is not True:
            return None
        write = torch.profiler.tensorboard_trace_handler(str(self._folder / "profile"))

        def try_to_write(profile: torch.profiler.profile) -> None:
            try:
                write(profile)
            except (OSError, RuntimeError) as error:
                warn(f"the profile could not be written ({error})")

        profile = torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
            on_trace_ready=try_to_write,
        )
        profile.start()
        return profile

    def _apply(self, update: Float[Tensor, " d"], report: Report) -> bool:
        params = self._experiment.params
        if not bool(torch.isfinite(update).all()):
            self._on_nonfinite(
                report.nonfinite or f"step {self._done}: the update became NaN or Inf"
            )
            if self._config["on_nonfinite"] == "skip_step":
                return False  # the schedule counts updates, not steps
        params.grad = update
        self._optimizer.step()
        self._scheduler.step()
        self._experiment.flat.statistics.copy_(report.statistics)
        self._accuracy = None
        if self._diverged is None and not bool(torch.isfinite(params).all()):
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
        result = evaluate(self._experiment.network, data.chunks(data.eval_split))
        self._accuracy, self._best = result.accuracy, max(self._best, result.accuracy)
        return {
            f"{data.eval_split}_accuracy": result.accuracy,
            f"{data.eval_split}_loss": result.loss,
        }

    def _save(self) -> None:
        """Write a checkpoint; where the disk does not take it, it is tried again later."""
        start = perf_counter()
        if self._saving.attempt(self._done, self._write_checkpoint):
            self._retry_at = None
            return
        end = perf_counter()
        self._retry_at = end + min((end - start) / _RETRY_SHARE, _LONGEST_PAUSE_S)

    def _is_overdue(self) -> bool:
        return self._retry_at is not None and perf_counter() >= self._retry_at

    def _insist(self, outage: Outage, write: Callable[[], None]) -> None:
        """Write at the end of a run; tried again for ``PATIENCE_S``.

        Raises:
            RunError: if it still fails.
        """
        deadline = perf_counter() + PATIENCE_S
        while not outage.attempt(self._done, write):
            if perf_counter() >= deadline:
                raise RunError(
                    f"{outage.what} could not be written for {PATIENCE_S:g} s ({outage.error}): "
                    "the same command goes on from the last checkpoint"
                )
            sleep(min(1.0, PATIENCE_S))

    def _write_checkpoint(self) -> None:
        self._recorder.sync()
        state = {
            "step": self._done,
            "data": self._experiment.dataset.digest.hex(),
            "params": self._experiment.params,
            "statistics": self._experiment.flat.statistics,
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "state": self._protocol.state,
            "best_accuracy": self._best,
            "diverged_at_step": self._diverged,
            "bytes_in": self._bytes_in,
            "files_computed": self._files_computed,
            "config": json.dumps(self._config),
        }
        keep, damaged = self._config["keep"], self._damaged
        checkpoint.save(self._checkpoints, self._done, state, keep, damaged)
        self._saved_at, self._damaged = self._done, ()

    def _resume(self) -> None:
        saved, self._damaged, _ = checkpoint.newest(self._checkpoints)
        if saved is None:
            return
        self._experiment.params.copy_(saved["params"])
        self._experiment.flat.statistics.copy_(saved["statistics"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._scheduler.load_state_dict(saved["scheduler"])
        state, params = self._protocol.state, self._experiment.params
        for name, value in saved["state"].items():
            state[name] = value.to(state.get(name, params).device)
        self._best, self._diverged = saved["best_accuracy"], saved["diverged_at_step"]
        self._bytes_in, self._files_computed = saved["bytes_in"], saved["files_computed"]
        self._done = self._first = self._saved_at = saved["step"]

    def _summary(self) -> dict[str, Any]:
        experiment = self._experiment
        records = read_metrics(self._folder)
        return {
            f"final_{experiment.dataset.eval_split}_accuracy": self._accuracy,
            f"best_{experiment.dataset.eval_split}_accuracy": self._best,
            "steps": self._done,
            "seconds_per_step": median([r["seconds"]["total"] for r in records] or [0.0]),
            "num_parameters": len(experiment.params),
            "num_corrupt": experiment.num_corrupt,
            "epsilon_hat": experiment.epsilon_hat,
            "byzantine": list(experiment.choose(max(0, self._done - 1))),
            "parameters_sha256": parameters_sha256(experiment.params),
            "buffers_sha256": parameters_sha256(experiment.flat.statistics),
            "bytes_in_per_step": self._bytes_in,
            "server_memory_bytes": self._memory.peak,
            "files_computed": [int(n) if n == int(n) else n for n in self._files_computed],
            "attack_effective": experiment.attack_effective,
            "diverged_at_step": self._diverged,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "numpy", "byzshield_exp")},
            },
        }
