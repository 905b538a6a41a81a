"""What liars send in place of the truth."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import Defence, NonFiniteRows, Unclean
from byzshield_exp.attacks import Knowledge, PastParameters, check_forged, forged_files, shares
from byzshield_exp.errors import RunError, located
from byzshield_exp.rows.message import Message, join
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients

_POISON = -100.0  # times the true running statistics

Forge = Callable[..., Tensor]
Lies = Mapping[tuple[int, int], Message]  # by worker and file


class Forging:
    """The attacks of a run, as the liars of this process make them.

    Args of the constructor:
        experiment: the parts.
        truth: the gradients that this process computes.
        past: the parameters of earlier steps.
    """

    def __init__(self, experiment: Experiment, truth: TrueGradients, past: PastParameters) -> None:
        self._experiment, self._truth, self._past = experiment, truth, past
        self._memory: dict[str, dict[str, Any]] = {}  # of each attack

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
            workers: those of them whose lies are wanted. Who makes which of several attacks
                follows from all liars that the run chose for this step, so nobody changes to
                another attack when fewer are left.
            absent: workers who send nothing at this step, so that attacks leave them out.
            defence: what the liars lie to; None: the run's.

        Raises:
            RunError: if the attack cannot be made.
        """
        forge = self._experiment.forge
        if forge is None or not workers:
            return {}
        lies: dict[tuple[int, int], Message] = {}
        held = self._experiment.assignment.files_of_worker.tolist()
        for name, (attack, its) in shares(forge, self._experiment.choose(step)).items():
            mine = [worker for worker in workers if worker in its]
            knowledge = Knowledge(
                truth=self._truth,
                assignment=self._experiment.assignment,
                liars=liars,
                files=tuple(sorted({file for worker in mine for file in held[worker]})),
                seed=self._experiment.seed,
                step=step,
                num_corrupt=self._experiment.num_corrupt,
                defence=defence or self._experiment.defence_at(step),
                past=self._past.at,
                memory=self._memory.setdefault(name, {}),
                absent=tuple(absent),
            )
            messages = self._messages(attack, knowledge) if mine else {}
            lies |= {(worker, file): messages[file] for worker in mine for file in held[worker]}
        return lies

    def _messages(self, forge: Forge, knowledge: Knowledge) -> dict[int, Message]:
        """Make the message of each file that is to be forged."""
        files, size = knowledge.files, len(self._experiment.params)
        try:
            rows = forge(knowledge)
            check_forged(rows, len(files), size)
        except (Unclean, NonFiniteRows):  # nothing honest to go by: the server's policy decides
            rows = self._truth.rows(files)
        except ValueError as error:
            raise RunError(f"step {knowledge.step + 1}: the attack {located(error)}") from error
        joined = self._with_statistics(forge, rows, knowledge)
        losses = self._truth.losses
        return {
            file: Message(row, size, float(losses[file]))
            for file, row in zip(files, joined, strict=True)
        }

    def _with_statistics(
        self, forge: Forge, rows: Float[Tensor, "m d"], knowledge: Knowledge
    ) -> Float[Tensor, "m d_plus_s"]:
        """Put the running statistics that the liars send behind forged rows."""
        if self._truth.num_statistics == 0:
            return rows
        files = knowledge.files
        self._truth.compute(files)
        statistics = torch.stack([self._truth.message(file).statistics for file in files])
        if self._experiment.is_poisoning_statistics:
            forged = forged_files(forge, knowledge.assignment, knowledge.liars)
            for its, file in zip(statistics, files, strict=True):
                if forged is None or file in forged:
                    its *= _POISON
        return join(rows, statistics)
