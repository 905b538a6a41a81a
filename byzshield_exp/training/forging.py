"""What liars send in place of the truth."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import Defence, NonFiniteRows, Unclean
from byzshield_exp.attacks import Knowledge, PastParameters, check_forged, forged_files
from byzshield_exp.errors import RunError
from byzshield_exp.rows.message import Message, join
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients

_POISON = -100.0  # times the true running statistics

Forge = Callable[..., Tensor]
Lies = Mapping[tuple[int, int], Message]  # by worker and file


class Forging:
    """The attack of a run, as the liars of this process make it.

    Args of the constructor:
        experiment: the parts.
        truth: the gradients that this process computes.
        past: the parameters of earlier steps.
    """

    def __init__(self, experiment: Experiment, truth: TrueGradients, past: PastParameters) -> None:
        self._experiment, self._truth, self._past = experiment, truth, past
        self._memory: dict[str, Any] = {}  # of the attack

    def lies(
        self,
        step: int,
        liars: tuple[int, ...],
        workers: Sequence[int],
        absent: Collection[int] = (),
        defence: Defence | None = None,
    ) -> Lies:
        """Forge what some liars send for each file that they hold.

        Args:
            step: of the run; the truth has begun it.
            liars: all who lie at this step.
            workers: those of them whose lies are wanted.
            absent: workers who send nothing at this step, so that attacks leave them out.
            defence: what the liars lie to; None: the run's.

        Raises:
            RunError: if the attack cannot be made.
        """
        experiment, forge = self._experiment, self._experiment.forge
        held = experiment.assignment.files_of_worker.tolist()
        files = sorted({file for worker in workers for file in held[worker]})
        if forge is None or not files:
            return {}
        knowledge = Knowledge(
            truth=self._truth,
            assignment=experiment.assignment,
            liars=liars,
            files=tuple(files),
            seed=experiment.seed,
            step=step,
            num_corrupt=experiment.num_corrupt,
            defence=defence or experiment.defence_at(step),
            past=self._past.at,
            memory=self._memory,
            absent=tuple(absent),
        )
        messages = self._messages(forge, knowledge)
        return {(worker, file): messages[file] for worker in workers for file in held[worker]}

    def _messages(self, forge: Forge, knowledge: Knowledge) -> dict[int, Message]:
        """Make the message of each file that is to be forged."""
        files, size = knowledge.files, len(self._experiment.params)
        try:
            rows = forge(knowledge)
            check_forged(rows, len(files), size)
        except (Unclean, NonFiniteRows):  # nothing honest to go by: the server's policy decides
            rows = self._truth.rows(files)
        except ValueError as error:
            raise RunError(f"step {knowledge.step + 1}: the attack {error}") from error
        joined = self._with_statistics(rows, files, knowledge.liars)
        losses = self._truth.losses
        return {
            file: Message(row, size, float(losses[file]))
            for file, row in zip(files, joined, strict=True)
        }

    def _with_statistics(
        self, rows: Float[Tensor, "m d"], files: Sequence[int], liars: tuple[int, ...]
    ) -> Float[Tensor, "m d_plus_s"]:
        """Put the running statistics that the liars send behind forged rows."""
        if self._truth.num_statistics == 0:
            return rows
        self._truth.compute(files)
        statistics = torch.stack([self._truth.message(file).statistics for file in files])
        if self._experiment.is_poisoning_statistics:
            forged = forged_files(self._experiment.forge, self._experiment.assignment, liars)
            for its, file in zip(statistics, files, strict=True):
                if forged is None or file in forged:
                    its *= _POISON
        return join(rows, statistics)
