"""What the workers of a process compute and send: the truth, or lies."""

from collections.abc import Collection, Iterator, Sequence

from byzshield_exp.attacks import PastParameters
from byzshield_exp.clusters import Transport
from byzshield_exp.rows.message import Message
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.forging import Forging
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.stopwatch import Stopwatch


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
        self._truth, self._transport, self._watch = truth, transport, watch
        self._forging = Forging(experiment, truth, past)
        self._workers = transport.seats.workers_of(transport.rank)
        self._travels = transport.seats.world_size > 1

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
            message = self._truth.message(file)
            for worker in honest_holders[file]:
                self._send(step, worker, file, message)
        with self._watch("attack"):
            lies = self._forging.lies(step, liars, [w for w in self._workers if w in lying])
        for file, workers in lying_holders.items():
            for worker in workers:
                self._send(step, worker, file, lies[worker, file])

    def _send(self, step: int, worker: int, file: int, message: Message) -> None:
        with self._watch("send"):
            self._transport.send(step, worker, file, message)

    def _computed(self, files: Sequence[int]) -> Iterator[int]:
        """Compute files; where rows travel, only as many at a time as there are threads."""
        at_once = max(1, self._truth.num_threads if self._travels else len(files))
        for start in range(0, len(files), at_once):
            some = files[start : start + at_once]
            with self._watch("compute"):
                self._truth.compute(some)
            yield from some
