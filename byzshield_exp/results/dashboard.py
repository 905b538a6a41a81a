"""Show a run in TensorBoard: its page at the start, scalars by step, its end."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from byzshield_exp.assignments import Assignment
from byzshield_exp.distortion import WorstCase
from byzshield_exp.results import tags
from byzshield_exp.results.events import Events
from byzshield_exp.results.hparams import hparams_summaries
from byzshield_exp.results.journal import Journal
from byzshield_exp.results.placement_picture import placement_png

_LAYOUT = {
    "accuracy": {"all runs": ["Multiline", [f"accuracy/({'|'.join(tags.SPLITS)})$"]]},
    "byzantine": {"eps_hat, realised and worst": ["Multiline", [tags.REALISED, tags.WORST]]},
}
_CODE, _WIDTH = "    ", 100


class Dashboard:
    """Writes what TensorBoard shows of a run.

    A tag that was 0 in every step so far is not written. With the first other value its zeros are
    shown from the first step on. Accuracies, losses and the learning rate are always written.

    Args of the constructor:
        folder: the run's folder.
        first_step: the step to go on after; TensorBoard drops what earlier files have of later
            steps.
        config: of the run, plain and resolved.
        assignment: who computes what.
        worst: the worst set of liars.
        kept: records up to ``first_step``.
    """

    def __init__(
        self,
        folder: Path,
        first_step: int,
        config: Mapping[str, Any],
        assignment: Assignment,
        worst: WorstCase,
        kept: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._num_files, self._worst = assignment.num_files, worst
        self._zeros: dict[str, list[int]] = {}  # first and last step of tags not yet shown
        self._shown: set[str] = set()
        self._evaluated_at = 0
        for record in kept:
            self._due(record)
        self._events = Events(folder, purge_step=first_step + 1 if first_step else 0)
        self._hparams = hparams_summaries(config, assignment)
        if first_step == 0:
            self._open(config, assignment)

    @property
    def journal(self) -> Journal:
        """The file."""
        return self._events.journal

    def step(self, record: Mapping[str, Any], rows: Mapping[str, Sequence[float]]) -> None:
        """Add a record of a step.

        Args:
            record: as in ``metrics.jsonl``.
            rows: numbers of a histogram each, by name.
        """
        step, values = record["step"], self._due(record)
        for tag in values.keys() & self._zeros.keys():
            for earlier in sorted(set(self._zeros.pop(tag))):
                self._events.add_scalars({tag: 0.0}, earlier)
        self._events.add_scalars(values, step)
        for name, numbers in rows.items():
            self._events.add_histogram(tags.tag_of(name), numbers, step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Add the final accuracy, if no step has it, and say that the run has ended well."""
        for split in tags.SPLITS:
            accuracy = summary.get(f"final_{split}_accuracy")
            if accuracy is not None and self._evaluated_at < summary["steps"]:
                self._events.add_scalars({f"accuracy/{split}": accuracy}, summary["steps"])
        self._events.add_summary(self._hparams.end, 0)

    def _open(self, config: Mapping[str, Any], assignment: Assignment) -> None:
        from torch.utils.tensorboard.summary import custom_scalars, text

        head = self._hparams.experiment, self._hparams.start
        for summary in (*head, custom_scalars(_LAYOUT), text("run", _page(config))):
            self._events.add_summary(summary, 0)
        picture = placement_png(assignment, self._worst.workers)
        if picture is not None:
            self._events.add_picture(tags.PLACEMENT, picture, 0)

    def _due(self, record: Mapping[str, Any]) -> dict[str, float]:
        """Return the scalars of a record that are to be written; note the zeros of the others."""
        found, step = tags.scalars(record), record["step"]
        if "distorted_files" in record:
            found[tags.REALISED] = record["distorted_files"] / self._num_files
            found[tags.WORST] = self._worst.upper_bound / self._num_files
        if any(f"accuracy/{split}" in found for split in tags.SPLITS):
            self._evaluated_at = step
        self._shown |= {tag for tag, value in found.items() if value or tags.is_always_shown(tag)}
        for tag in found.keys() - self._shown:
            self._zeros.setdefault(tag, [step, step])[1] = step
        return {tag: value for tag, value in found.items() if tag in self._shown}


def _page(config: Mapping[str, Any]) -> str:
    """Return the text of a run in Markdown: how to repeat it, and its configuration."""
    rest = {key: value for key, value in config.items() if key != "command"}
    said = yaml.safe_dump(json.loads(json.dumps(rest)), sort_keys=False)
    return (
        f"The command that repeats this run:\n\n{indent(_wrapped(config['command']), _CODE)}\n\n"
        f"Its configuration:\n\n{indent(said, _CODE)}"
    )


def _wrapped(command: str) -> str:
    """Break a long command between its arguments, as a shell reads it."""
    lines = [""]
    for word in shlex.split(command):
        if len(lines[-1]) + len(word) > _WIDTH:
            lines.append("   ")
        lines[-1] += f" {shlex.quote(word)}"
    return " \\\n".join(lines).strip()
