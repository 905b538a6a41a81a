"""BTARD on one rank: the steps, the bans, and what is kept between steps."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks import PastParameters
from byzshield_exp.clusters import Statement, Transport
from byzshield_exp.clusters.agreement import Agreement
from byzshield_exp.clusters.inbox import STATEMENT_BYTES
from byzshield_exp.errors import LostServer, RunError, TooFewReplicas
from byzshield_exp.streams import Stream, generator
from byzshield_exp.training.btard import lottery
from byzshield_exp.training.btard.agreed import PeerOptions
from byzshield_exp.training.btard.attempt import Attempt, Counts, Rules
from byzshield_exp.training.btard.cheating import Cheating
from byzshield_exp.training.btard.evaluation import refresh_statistics
from byzshield_exp.training.btard.ledger import Ledger
from byzshield_exp.training.btard.phases import run
from byzshield_exp.training.btard.postings import params_digest
from byzshield_exp.training.btard.roster import Places
from byzshield_exp.training.btard.rows import PeerRows
from byzshield_exp.training.btard.step_table import distances, mean_loss, nonfinite, table
from byzshield_exp.training.btard.validation import PARAMS, Validation
from byzshield_exp.training.btard.verdicts import Ban, Reason
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.introducing import introduction
from byzshield_exp.training.protocol import Report
from byzshield_exp.training.stopwatch import Stopwatch
from byzshield_exp.training.tables import phases, profile
from byzshield_exp.training.updates import Updates, shared


@dataclass
class _Step:
    """What a step's attempts have in common, for its report."""

    counts: Counts
    bans_before: int
    attacking: tuple[int, ...] = ()


class Btard:
    """The protocol on one rank; see :class:`TrainingProtocol`.

    Args of the constructor:
        experiment: the parts.
        transport: this rank's end.
        truth: the gradients that this process computes.
        options: as chosen.
        rules: what attempts follow.
        is_profiled: whether reports have a profile.
        shows_rows: whether reports have the distances of rows, with ``ban=validate``.

    Attributes:
        state: tensors that outlive a step, for the checkpoint.
    """

    def __init__(
        self,
        experiment: Experiment,
        transport: Transport,
        truth: TrueGradients,
        options: PeerOptions,
        rules: Rules,
        is_profiled: bool = False,
        shows_rows: bool = False,
    ) -> None:
        self._experiment, self._transport, self._truth = experiment, transport, truth
        self._options, self._rules = options, rules
        self._is_profiled, self._shows_rows = is_profiled, shows_rows
        self.state: dict[str, Tensor] = {}
        on_gpu = is_profiled and experiment.params.device.type == "cuda"
        self._watch = Stopwatch(torch.cuda.synchronize if on_gpu else None)
        self._past = PastParameters(experiment.forge, experiment.params, self.state)
        told = rules.clipping if options.is_clipping else None
        self._rows = PeerRows(experiment, truth, self._past, told)
        num_peers = experiment.assignment.num_workers
        self._ledger = Ledger(num_peers, options.on_ban == "drop")
        self._validation = Validation(truth, self.state)
        self._events: list[str] = []
        self._computed = [0] * transport.seats.world_size
        self._step = 0

    # The verbs of a protocol.

    def prepare(self, updates: Updates) -> None:
        """Start from rank 0's parameters, optimizer and bans; compare bits and data."""
        if self._transport.seats.world_size > 1:
            updates.make()
            self._transport.share(self._experiment.flat.state)
            kept = shared(self._transport, {"updates": updates.state, "state": self.state})
            if self._transport.rank > 0:
                updates.load(kept["updates"])
                device = self._experiment.params.device
                self.state |= {
                    name: value.to(device) if name == PARAMS else value
                    for name, value in kept["state"].items()
                }
            self._introduce()
        self._ledger.load(self.state)
        self._validation.load()

    def begin(self, step: int | None) -> int | None:
        """Begin a step: its number travels, and no parameters."""
        return self._transport.publish(step, None)

    def step(self, step: int) -> tuple[Float[Tensor, " d"], Report] | None:
        """Aggregate until an attempt bans nobody.

        Raises:
            RunError: if it cannot go on; ``TooFewReplicas`` if nobody is left to compute.
        """
        try:
            return self._aggregated(step)
        except LostServer:
            if self._transport.rank == 0:
                raise
            return None  # the run ended in the middle of a step, as the next word will say

    def take_events(self) -> list[str]:
        """Human-readable warnings since the last report, once."""
        events = [*self._transport.events, *self._events]
        self._transport.events.clear()
        self._events.clear()
        return events

    def before_evaluation(self) -> None:
        """Make the running statistics from public files: peers' own cannot be checked."""
        refresh_statistics(self._experiment, self._step)

    def facts(self) -> dict[str, Any]:
        """Bans, attacks, and the radius."""
        tau, delta_max = self._rules.clipping.tau, self._rules.delta_max
        return {**self._ledger.facts(), "tau": tau, "delta_max": delta_max}

    def end(self) -> None:
        """Let the other ranks end as well."""
        self._transport.end()

    # What they are made of.

    def _aggregated(self, step: int) -> tuple[Float[Tensor, " d"], Report] | None:
        self._step, done = step, _Step(Counts(), len(self._ledger.bans))
        liars, roster = self._liars(step), self._ledger.roster
        done.attacking = self._attacking(liars, roster.active)
        accusing: dict[int, bool] = {}
        params = params_digest(self._experiment.params) if self._rules.verifies else b""
        for number in range(2 * self._rules.num_peers + 1):  # each bans somebody, at most twice
            if not roster.active:
                self._give_up(step)
                return None
            places = Places(self._transport.seats, self._transport.rank, roster)
            if number == 0:
                accusing = self._compute(step, liars, places)
            attempt = Attempt(
                self._rules, places, self._transport, self._rows,
                self._cheating(step, liars), self._watch, done.counts, step, number, params,
                accusing, self._validation.judged,
            )  # fmt: skip
            bans = run(attempt)
            if not bans:
                return self._finish(attempt, done)
            if not self._ban(bans, step):
                break
            roster = roster.without(self._ledger.gone)
        raise RunError(f"step {step + 1}: peers who are banned already do not let it end")

    def _introduce(self) -> None:
        plays = len(self._transport.seats.workers_of(self._transport.rank)) > 0
        own = introduction(self._experiment, self._truth, plays)
        said = self._transport.introduce(own.pack())
        if said is not None:
            Agreement(own).check(self._transport, said)

    def _liars(self, step: int) -> tuple[int, ...]:
        """Who lies at a step, of those who were never banned."""
        banned = self._ledger.banned
        return tuple(peer for peer in self._experiment.choose(step) if peer not in banned)

    def _attacking(self, liars: tuple[int, ...], active: tuple[int, ...]) -> tuple[int, ...]:
        """Liars who do something at this step: with an attack alone, those who compute."""
        if self._experiment.cheats:
            return liars
        if self._experiment.forge is None:
            return ()
        return tuple(peer for peer in liars if peer in active)

    def _cheating(self, step: int, liars: tuple[int, ...]) -> Cheating:
        left = tuple(peer for peer in liars if peer not in self._ledger.banned)
        return Cheating(self._experiment.cheats, left, self._byzantine(step))

    def _byzantine(self, step: int) -> tuple[int, ...]:
        """Who was never banned and lies at some steps: they never accuse each other."""
        banned = self._ledger.banned
        return tuple(
            peer for peer in self._experiment.choose.choose(step=step) if peer not in banned
        )

    def _compute(self, step: int, liars: tuple[int, ...], places: Places) -> dict[int, bool]:
        """Compute the rows of a step; by validator of this process, whether it accuses."""
        forging = liars if self._experiment.forge is not None else ()
        with self._watch("compute"):
            lying = tuple(peer for peer in places.roster.active if peer in forging)
            self._rows.begin(step, lying, places)
        silent = self._experiment.choose.choose(step=step)  # also when banned, as for the coin
        with self._watch("validate"):
            return self._validation.accusing(places, silent)

    def _ban(self, bans: list[Ban], step: int) -> list[Ban]:
        new = self._ledger.ban(bans, step)
        for ban in new:
            by = f" by {ban.by}" if ban.by >= 0 else ""
            reason = ban.reason.name.lower().replace("_", " ")
            self._events.append(f"step {step + 1}: peer {ban.peer} is banned{by}: {reason}")
            self._rows.turned_honest(ban.peer)
        return new

    def _give_up(self, step: int) -> None:
        """End the run on rank 0; other ranks hear of it when they begin the next step.

        Raises:
            TooFewReplicas: on rank 0.
        """
        if self._transport.rank == 0:
            live = len(self._ledger.roster.live)
            raise TooFewReplicas(f"step {step + 1}: {live} peers are left, none of them computes")

    def _finish(self, attempt: Attempt, done: "_Step") -> tuple[Float[Tensor, " d"], Report]:
        step = attempt.step
        for peer in done.attacking:
            self._ledger.attacks[peer] += 1
        if self._options.ban == "bernoulli":
            self._toss(done.attacking, step)
        self._ledger.duties = ()
        if attempt.posted is not None:
            live = self._ledger.roster.live
            drawn = lottery.duties(
                attempt.posted.drawn, attempt.active, live, self._options.validators
            )
            self._ledger.duties = tuple(drawn)
            self._validation.keep(attempt.posted, self._experiment.params)
        self._ledger.save(self.state)
        self._past.remember(step)
        report = self._report(attempt, done)
        return attempt.aggregate.to(self._experiment.params.device), report

    def _toss(self, attacking: tuple[int, ...], step: int) -> None:
        """The public codes' coin: it bans an attacker after its attack, whatever it sent."""
        for peer in attacking:
            random = generator(self._rules.seed, Stream.COIN, peer, self._ledger.attacks[peer])
            if random.random() < self._options.probability:
                self._ban([Ban(peer, Reason.COIN)], step)

    def _report(self, attempt: Attempt, done: "_Step") -> Report:
        seats = self._transport.seats
        for rank in seats.players:
            mine = seats.workers_of(rank)
            self._computed[rank] += sum(peer in mine for peer in attempt.active)
        bytes_in, bytes_out = self._transport.traffic
        seconds, cpu_seconds = self._watch.reset()
        said = self._statements(Statement(seconds, cpu_seconds, 0, bytes_out, bytes_in))
        return Report(
            loss=mean_loss(attempt),
            byzantine=done.attacking,
            statistics=self._experiment.flat.statistics.clone(),
            nonfinite=nonfinite(attempt),
            bytes_in=bytes_in,
            files_computed=list(self._computed),
            seconds=phases(seconds, said.values()),
            events=self.take_events(),
            table=table(attempt, self._ledger, done.attacking, done.bans_before),
            profile=profile(said, seats.world_size) if self._is_profiled else None,
            rows=distances(attempt, done.attacking) if self._shows_rows else None,
        )

    def _statements(self, own: Statement) -> dict[int, Statement]:
        """What each rank says of its step, where that was asked for; else this one's."""
        if not self._is_profiled:
            return {self._transport.rank: own}
        every = range(self._transport.seats.world_size)
        said = self._transport.round(
            self._step, {-1 - self._transport.rank: own.pack()}, [-1 - rank for rank in every],
            STATEMENT_BYTES,
        )  # fmt: skip
        found = {-1 - one: Statement.unpack(content) for one, content in said.items()}
        return found | {self._transport.rank: own}
