"""What the workers of a process compute and send: the truth, or lies."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import NonFiniteRows, Unclean
from byzshield_exp.attacks import Knowledge, PastParameters, check_forged, forged_files
from byzshield_exp.clusters import Transport
from byzshield_exp.errors import RunError
from byzshield_exp.rows.message import Message, join
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import Lies, Table, TrueGradients
from byzshield_exp.training.stopwatch import Stopwatch

_POISON = -100.0  # times the true running statistics


class Work:
    """The workers that this process plays.

    Args of the constructor:
        experiment: the parts.
        truth: the gradients that this process computes.
        transport: takes the messages.
        past: the parameters of earlier steps.
        watch: of this process's phases.
    """

    def __init__(
        self,
        experiment: Experiment,
        truth: TrueGradients,
        transport: Transport,
        past: PastParameters,
        watch: Stopwatch,
    ) -> None:
        self._experiment, self._truth, self._transport = experiment, truth, transport
        self._past, self._watch = past, watch
        self._workers = transport.seats.workers_of(transport.rank)
        self._travels = transport.seats.world_size > 1
        self._memory: dict[str, Any] = {}  # of the attack

    def do(self, step: int, liars: tuple[int, ...], lying: Collection[int]) -> None:
        """Send all messages of a step, in the order of :meth:`Seats.order_of`.

        Args:
            step: of the run.
            liars: chosen for this step.
            lying: those that do lie.
        """
        seats = self._transport.seats
        honest_holders = seats.holders([w for w in self._workers if w not in lying])
        lying_holders = seats.holders([w for w in self._workers if w in lying])
        self._truth.begin(step)
        with self._watch("data"):
            self._truth.load(honest_holders)
        for file in self._computed(sorted(honest_holders)):
            self._send(step, file, honest_holders[file], self._truth)
        with self._watch("attack"):
            lies = self._forge(step, liars, sorted(lying_holders))
        for file, workers in lying_holders.items():
            self._send(step, file, workers, lies)

    def _send(self, step: int, file: int, workers: Sequence[int], table: Table) -> None:
        with self._watch("send"):
            message = table.message(file)
            for worker in workers:
                self._transport.send(step, worker, file, message)

    def _computed(self, files: Sequence[int]) -> Iterator[int]:
        """Compute files; where rows travel, only as many at a time as there are threads."""
        at_once = max(1, self._truth.num_threads if self._travels else len(files))
        for start in range(0, len(files), at_once):
            some = files[start : start + at_once]
            with self._watch("compute"):
                self._truth.compute(some)
            yield from some

    def _forge(self, step: int, liars: tuple[int, ...], files: Sequence[int]) -> Lies:
        experiment, truth = self._experiment, self._truth
        if experiment.forge is None or not files:
            return Lies({})
        knowledge = Knowledge(
            truth=truth,
            assignment=experiment.assignment,
            liars=liars,
            files=tuple(files),
            seed=experiment.seed,
            step=step,
            num_corrupt=experiment.num_corrupt,
            defence=experiment.defence_at(step),
            past=self._past.at,
            memory=self._memory,
        )
        try:
            rows = experiment.forge(knowledge)
            check_forged(rows, len(files), len(experiment.params))
        except (Unclean, NonFiniteRows):  # nothing honest to go by: the server's policy decides
            rows = truth.rows(files)
        except ValueError as error:
            raise RunError(f"step {step + 1}: the attack {error}") from error
        joined = self._with_statistics(rows, files, liars)
        size, losses = len(experiment.params), truth.losses
        return Lies(
            {
                file: Message(row, size, float(losses[file]))
                for file, row in zip(files, joined, strict=True)
            }
        )

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
