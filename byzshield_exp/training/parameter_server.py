"""The parameter server: workers send one gradient per file, the server votes and aggregates."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import NonFiniteRows
from byzshield_exp.attacks import PastParameters
from byzshield_exp.clusters import (
    Channel,
    Inbox,
    Statement,
    Transport,
    TransportOptions,
    deliver,
    in_first_rows,
)
from byzshield_exp.clusters.agreement import Agreement
from byzshield_exp.clusters.delivery import Delivery
from byzshield_exp.errors import ConfigError, TooFewReplicas
from byzshield_exp.rows.message import split
from byzshield_exp.rows.parallel import new_rows
from byzshield_exp.training.aggregation import Aggregation
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.introducing import introduction
from byzshield_exp.training.protocol import Report, protocol_traits
from byzshield_exp.training.radius import with_radius
from byzshield_exp.training.stopwatch import Stopwatch
from byzshield_exp.training.tables import listed, middle_loss, phases, profile
from byzshield_exp.training.true_gradients import seats_and_truth
from byzshield_exp.training.updates import Updates
from byzshield_exp.training.voting import MajorityOf, Outcome, vote
from byzshield_exp.training.work import Work
from byzshield_exp.votes import count_disagreements, reads_digests


class ParameterServer:
    """The protocol on one rank; see :class:`TrainingProtocol`.

    Args of the constructor:
        experiment: the parts.
        transport: this rank's end.
        truth: the gradients that this process computes.
        rows: ``[f, d + s]``, on the server where winners are put together.
        majority_of: whether a class needs a majority of all r replicas or of those that came.
        is_profiled: whether reports have a profile.

    Attributes:
        state: the server's tensors that outlive a step, for the checkpoint.
    """

    def __init__(
        self,
        experiment: Experiment,
        transport: Transport,
        truth: TrueGradients,
        rows: Float[Tensor, "f d_plus_s"],
        majority_of: MajorityOf = "all",
        is_profiled: bool = False,
    ) -> None:
        self._experiment, self._transport, self._truth = experiment, transport, truth
        self._rows, self._majority_of, self._is_profiled = rows, majority_of, is_profiled
        self.state: dict[str, Tensor] = {}
        on_gpu = is_profiled and experiment.params.device.type == "cuda"
        self._watch = Stopwatch(torch.cuda.synchronize if on_gpu else None)
        self._past = PastParameters(experiment.forge, experiment.params, self.state)
        self._work = Work(experiment, truth, transport, self._past, self._watch)
        self._aggregation = Aggregation(experiment, self.state)
        self._agreement: Agreement | None = None
        self._files_computed: dict[int, int] = {}  # by rank
        self._is_running = False

    def prepare(self, updates: Updates) -> None:
        """Compare the data over all ranks, and file 0's gradient where replicas must be equal."""
        if self._transport.seats.world_size == 1:
            return
        if self._transport.seats.server_plays:  # its parameters may be of a checkpoint
            self._transport.share(self._experiment.flat.state)
        plays = len(self._transport.seats.workers_of(self._transport.rank)) > 0
        own = introduction(self._experiment, self._truth, plays)
        said = self._transport.introduce(own.pack())
        if said is not None:
            self._agreement = Agreement(own)
            self._agreement.check(self._transport, said)

    def begin(self, step: int | None) -> int | None:
        """Publish the step and the parameters."""
        return self._transport.publish(step, self._experiment.flat.state)

    def step(self, step: int) -> tuple[Float[Tensor, " d"], Report] | None:
        """Compute, send, vote and aggregate."""
        if not self._is_running:  # the first step after a resume, or of all
            for rows in self._past.known(step):
                self._transport.share(rows)
            self._is_running = True
        liars = self._experiment.choose(step)
        lying = liars if self._experiment.forge is not None else ()
        self._work.do(step, liars, lying)
        statement = self._statement()
        with self._watch("gather"):
            inbox = self._transport.collect(step, statement, lying)
        if inbox is None:
            self._transport.fetch({})
            self._past.remember(step)
            return None
        if self._agreement:
            self._agreement.check_late(self._transport, inbox.introductions)
        done = self._serve(inbox, step, lying)
        self._past.remember(step)  # not of a step that is given up: it is done again
        return done

    def take_events(self) -> list[str]:
        """Human-readable warnings since the last report, once."""
        events = list(self._transport.events)
        self._transport.events.clear()
        return events

    def before_evaluation(self) -> None:
        """Do nothing: they came with the rows."""

    def facts(self) -> dict[str, Any]:
        """The radius that was calibrated, if one was."""
        tau = self._experiment.tau
        return {} if tau is None else {"tau": tau}

    def end(self) -> None:
        """Let the other ranks end as well."""
        self._transport.end()

    def _serve(
        self, inbox: Inbox, step: int, liars: tuple[int, ...]
    ) -> tuple[Float[Tensor, " d"], Report]:
        with self._watch("vote"):
            outcome = vote(self._experiment, inbox, self._majority_of, step)
            classes = outcome.classes()
        with self._watch("deliver"):
            delivery = deliver(self._transport, inbox, classes, step)
            rows = in_first_rows(delivery.rows, self._rows)
        outcome = self._left_out(outcome, classes, delivery, step)
        with self._watch("aggregate"):
            update, statistics, nonfinite = self._aggregate(rows, outcome, inbox, step)
        return update, self._report(
            inbox, outcome, delivery, liars, statistics=statistics, nonfinite=nonfinite
        )

    def _left_out(
        self, outcome: Outcome, classes: Mapping[int, list[int]], delivery: Delivery, step: int
    ) -> Outcome:
        """Take the win from files whose whole class was caught.

        Raises:
            TooFewReplicas: if others of a class cannot be asked any more.
        """
        workers = self._experiment.assignment.workers_of_file
        missing = sorted(classes.keys() - delivery.rows.keys())
        for file in missing:
            holders = {(int(workers[file, place]), file) for place in classes[file]}
            if not holders <= delivery.caught:
                gone = sorted(worker for worker, _ in holders - delivery.caught)
                raise TooFewReplicas(
                    f"step {step + 1}: nobody is left to send the row of file {file}: workers "
                    f"{listed(gone)} had it"
                )
        return outcome.without(missing) if missing else outcome

    def _aggregate(
        self, rows: Float[Tensor, "n d_plus_s"], outcome: Outcome, inbox: Inbox, step: int
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, " s"], str]:
        """The update, the next statistics, and why the update is NaN, if it is."""
        params, bad = self._experiment.params, outcome.bad
        files = outcome.won.nonzero().flatten().tolist()
        rows = rows.to(params.device)
        if bool(bad.any()):
            rows[bad[files].to(rows.device)] = torch.nan  # also those with bad statistics alone
        gradients, their_statistics = split(rows, len(params))
        num_corrupt = self._num_corrupt(inbox)
        statistics = self._aggregation.statistics(their_statistics, num_corrupt)
        try:
            update = self._aggregation.update(gradients, files, bad, num_corrupt, step)
        except NonFiniteRows as error:
            why = f"step {step + 1}: {error}; {outcome.senders_of_bad()}"
            return torch.full_like(params, torch.nan), statistics, why
        return update, statistics, ""

    def _num_corrupt(self, inbox: Inbox) -> int:
        """The most winners that may be forged."""
        if self._majority_of == "present" and inbox.absent:
            return self._experiment.num_corrupt_without(inbox.absent)
        return self._experiment.num_corrupt

    def _statement(self) -> Statement:
        """Return what this process has done in a step so far; the server's goes on."""
        if self._transport.rank == 0:
            seconds, cpu_seconds = dict(self._watch.seconds), dict(self._watch.cpu_seconds)
        else:
            seconds, cpu_seconds = self._watch.reset()
        bytes_in, bytes_out = self._transport.traffic
        computed = self._truth.num_computed
        return Statement(seconds, cpu_seconds, computed, bytes_out, bytes_in)

    def _report(
        self,
        inbox: Inbox,
        outcome: Outcome,
        delivery: Delivery,
        liars: tuple[int, ...],
        **found: Any,
    ) -> Report:
        bytes_in, bytes_out = self._transport.traffic
        seconds, cpu_seconds = self._watch.reset()
        for rank, statement in inbox.statements.items():  # of an absent one, what it last said
            self._files_computed[rank] = statement.files_computed
        size = self._transport.seats.world_size
        own = Statement(seconds, cpu_seconds, 0, bytes_out, bytes_in)
        return Report(
            loss=middle_loss(inbox.losses),
            byzantine=liars,
            bytes_in=bytes_in,
            files_computed=[self._files_computed.get(rank, 0) for rank in range(size)],
            seconds=phases(seconds, inbox.statements.values()),
            events=self.take_events(),
            table={
                "distorted_files": self._count_distorted(outcome, liars),
                "files_without_majority": int((~outcome.won).sum()),
                "vote_disagreements": count_disagreements(outcome.labels),
                "nonfinite_files": int(outcome.bad.sum()),
                "absent": inbox.absent,
                "rejected": inbox.rejected,
                "caught": tuple(sorted({worker for worker, _ in delivery.caught})),
            },
            profile=profile(inbox.statements | {0: own}, size) if self._is_profiled else None,
            **found,
        )

    def _count_distorted(self, outcome: Outcome, liars: tuple[int, ...]) -> int:
        return 0 if self._experiment.forge is None else outcome.count_won_by(liars)


def _check(experiment: Experiment, config: Mapping[str, Any]) -> list[str]:
    if experiment.cheats:
        raise ConfigError(
            f"cheat={config['choices']['cheat']} protocol={config['choices']['protocol']}: cheats "
            "break BTARD's protocol: take approach=btard"
        )
    return []


@protocol_traits(check=_check)
def parameter_server(
    experiment: Experiment,
    config: Mapping[str, Any],
    channel: Channel,
    runs: int,
    gpu_sharers: int,
) -> ParameterServer:
    """Make this rank's end of the protocol.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        channel: what connects this process with the others.
        runs: that share this machine's cores.
        gpu_sharers: processes that share this one's GPU.

    Raises:
        ConfigError: if a GPU has too little memory.
    """
    options, num_files = config["cluster"], experiment.assignment.num_files
    seats, truth = seats_and_truth(experiment, config, channel, runs, gpu_sharers)
    experiment = with_radius(experiment, truth, is_heard=channel.rank == 0)
    if channel.world_size == 1:
        rows = truth.table  # winners stay where they are computed
    else:
        like = experiment.flat.state[None]
        like = like if channel.backend == "nccl" else like.cpu()
        rows = new_rows(num_files if channel.rank == 0 else 0, like)
    transport = channel.open(
        seats,
        TransportOptions(
            reads_digests(experiment.vote), options["worker_timeout"],
            int(options["bucket_mib"] * 2**20),
        ),
        rows,
    )  # fmt: skip
    return ParameterServer(
        experiment, transport, truth, rows, options["majority_of"], bool(config["profile"])
    )
