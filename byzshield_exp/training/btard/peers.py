"""BTARD on one rank: the steps, the bans, and what is kept between steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks import PastParameters
from byzshield_exp.clusters import Channel, Seats, Statement, Transport, TransportOptions
from byzshield_exp.clusters.agreement import Agreement
from byzshield_exp.clusters.backend import server_plays
from byzshield_exp.errors import RunError, TooFewReplicas
from byzshield_exp.rows.parallel import new_rows
from byzshield_exp.streams import Stream, generator
from byzshield_exp.training.btard import lottery, verdicts
from byzshield_exp.training.btard.agreed import PeerOptions, check_experiment, clipping_of
from byzshield_exp.training.btard.attempt import Attempt, Counts, Rules
from byzshield_exp.training.btard.calibration import calibrated
from byzshield_exp.training.btard.cheating import Cheating
from byzshield_exp.training.btard.clip import Centre, Clipping, centre
from byzshield_exp.training.btard.evaluation import refresh_statistics
from byzshield_exp.training.btard.ledger import Ledger
from byzshield_exp.training.btard.phases import run
from byzshield_exp.training.btard.posted import Posted
from byzshield_exp.training.btard.postings import params_digest
from byzshield_exp.training.btard.roster import Places
from byzshield_exp.training.btard.rows import PeerRows
from byzshield_exp.training.btard.verdicts import Ban, Reason, Recomputed
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.introducing import introduction
from byzshield_exp.training.protocol import Report, protocol_traits
from byzshield_exp.training.stopwatch import Stopwatch
from byzshield_exp.training.tables import phases, profile
from byzshield_exp.training.true_gradients import true_gradients
from byzshield_exp.training.updates import Updates, shared

_PARAMS = "btard_params"  # of the state: the parameters of the step before


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
    ) -> None:
        self._experiment, self._transport, self._truth = experiment, transport, truth
        self._options, self._rules, self._is_profiled = options, rules, is_profiled
        self.state: dict[str, Tensor] = {}
        on_gpu = is_profiled and experiment.params.device.type == "cuda"
        self._watch = Stopwatch(torch.cuda.synchronize if on_gpu else None)
        self._past = PastParameters(experiment.forge, experiment.params, self.state)
        is_clipping = rules.aggregate is not None and options.is_clipping
        self._rows = PeerRows(
            experiment, truth, self._past, rules.clipping if is_clipping else None
        )
        num_peers = experiment.assignment.num_workers
        self._ledger = Ledger(num_peers, options.on_ban == "drop")
        self._posted: Posted | None = None
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
                    name: value.to(device) if name == _PARAMS else value
                    for name, value in kept["state"].items()
                }
            self._introduce()
        self._ledger.load(self.state)
        self._posted = Posted.of_state(self.state)

    def begin(self, step: int | None) -> int | None:
        """Begin a step: its number travels, and no parameters."""
        return self._transport.publish(step, None)

    def step(self, step: int) -> tuple[Float[Tensor, " d"], Report] | None:
        """Aggregate until an attempt bans nobody."""
        self._step, done = step, _Step(Counts(), len(self._ledger.bans))
        liars, roster = self._liars(step), self._ledger.roster
        done.attacking = self._attacking(liars, roster.active)
        accusing: dict[int, bool] = {}
        params = params_digest(self._experiment.params) if self._rules.verifies else b""
        for number in range(self._rules.num_peers + 1):
            if not roster.active:
                self._give_up(step)
                return None
            places = Places(self._transport.seats, self._transport.rank, roster)
            if number == 0:
                accusing = self._compute(step, liars, places)
            attempt = Attempt(
                self._rules, places, self._transport, self._rows,
                self._cheating(step, liars), self._watch, done.counts, step, number, params,
                accusing, self._judged,
            )  # fmt: skip
            bans = run(attempt)
            if not bans:
                return self._finish(attempt, done)
            if not self._ban(bans, step):
                break
            roster = roster.without(self._ledger.gone)
        raise RunError(f"step {step + 1}: peers who are banned already do not let it end")

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
        banned = self._ledger.banned
        byzantine = self._experiment.choose.choose(step=step)
        silent = tuple(peer for peer in byzantine if peer not in banned)
        left = tuple(peer for peer in liars if peer not in banned)
        return Cheating(self._experiment.cheats, left, silent)

    def _compute(self, step: int, liars: tuple[int, ...], places: Places) -> dict[int, bool]:
        """Compute the rows of a step; by validator of this process, whether it accuses."""
        forging = liars if self._experiment.forge is not None else ()
        with self._watch("compute"):
            lying = tuple(peer for peer in places.roster.active if peer in forging)
            self._rows.begin(step, lying, places)
        with self._watch("validate"):
            return self._accusing(places, step)

    def _accusing(self, places: Places, step: int) -> dict[int, bool]:
        """By validator of this process whether its target's row was another one."""
        byzantine = self._experiment.choose.choose(step=step)
        silent = [peer for peer in byzantine if peer not in self._ledger.banned]
        return {
            validator: validator not in silent and self._found(target).reason is not None
            for validator, target in places.roster.duties
            if validator in places.live
        }

    def _found(self, target: int) -> Recomputed:
        """Compute a peer's row of the step before again, and compare."""
        posted = self._posted
        assert posted is not None
        row = self._truth.rows_at(posted.step, self.state[_PARAMS], [target])[0]
        return posted.finding(target, row.cpu())

    def _judged(self, accusations: list[tuple[int, int]]) -> list[Ban]:
        """What everybody finds of those whom validators accuse."""
        assert self._posted is not None
        findings = {target: self._found(target) for _, target in accusations}
        return verdicts.accused(accusations, findings, self._posted.active)

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
            self._posted = attempt.posted
            self.state |= attempt.posted.state()
            self.state[_PARAMS] = self._experiment.params.clone()
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
        own = {0: Statement(seconds, cpu_seconds, 0, bytes_out, bytes_in)}
        losses = np.array([float(attempt.committed[peer]["loss"]) for peer in attempt.active])
        is_update_whole = bool(attempt.aggregate.isfinite().all())
        return Report(
            loss=float(np.nanmean(losses)) if np.isfinite(losses).any() else math.nan,
            byzantine=done.attacking,
            statistics=self._experiment.flat.statistics.clone(),
            nonfinite="" if is_update_whole else self._nonfinite(attempt),
            bytes_in=bytes_in,
            files_computed=list(self._computed),
            seconds=phases(seconds, []),
            events=self.take_events(),
            table=self._table(attempt, done),
            profile=profile(own, seats.world_size) if self._is_profiled else None,
        )

    def _table(self, attempt: Attempt, done: "_Step") -> dict[str, Any]:
        active, counts = attempt.active, done.counts
        said = [attempt.aggregates[peer] for peer in active]
        return {
            "alive": len(self._ledger.roster.live),
            "attacking": len(done.attacking),
            "banned": len(self._ledger.banned),
            "banned_now": tuple(
                sorted(ban.peer for ban, _ in self._ledger.bans[done.bans_before :])
            ),
            "attempts": attempt.number + 1,
            "accusations": counts.accusations,
            "eliminations": counts.eliminations,
            "trials": counts.trials,
            "clipped_share": sum(int(one["clipped"]) for one in said) / len(active) ** 2,
            "iterations": max(int(one["iterations"]) for one in said),
            "residual": max(float(one["residual"]) for one in said),
            "data_bytes": counts.data,
            "control_bytes": counts.control,
        }

    def _nonfinite(self, attempt: Attempt) -> str:
        lost = [
            place
            for place, where in enumerate(attempt.parts)
            if not bool(attempt.aggregate[where].isfinite().all())
        ]
        return (
            f"step {attempt.step + 1}: no row is finite in parts {lost[:5]} of {len(attempt.parts)}"
        )


@protocol_traits(check=check_experiment)
def btard(
    experiment: Experiment,
    config: Mapping[str, Any],
    channel: Channel,
    runs: int = 1,
    gpu_sharers: int = 1,
    ban: Literal["validate", "bernoulli", "off"] = "validate",
    on_ban: Literal["drop", "replace_honest"] = "drop",
    validators: int = 1,
    projections: int = 1,
    delta_max: float | Literal["auto"] = "auto",
    ban_probability: float | Literal["auto"] = "auto",
) -> Btard:
    """Make this rank's end of the protocol.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        channel: what connects this process with the others.
        runs: that share this machine's cores.
        gpu_sharers: processes that share this one's GPU.
        ban: ``validate``: the protocol; ``bernoulli``: the coin of the public codes, by which an
            attacker bans itself; ``off``: the butterfly alone.
        on_ban: whether a banned peer is gone or goes on as an honest one.
        validators: peers a step that compute others' gradients of the step before again, with
            ``ban=validate``; from 0 to (K - 1) / 2.
        projections: random directions in which sums are checked, at least 1.
        delta_max: distance from a part's aggregate, > 0, beyond which more than half of the peers
            have it checked in public; ``auto``: from public files at the first parameters.
        ban_probability: of ``bernoulli``, in [0, 1], at each attack; ``auto``: ``(K - q) / K^2``.
    """
    options = PeerOptions.of(config)
    plays = server_plays(config, channel.backend)
    seats = Seats(experiment.assignment, channel.world_size, plays)
    truth = true_gradients(experiment, config, len(seats.players) * runs)
    clipping, delta = calibrated(experiment, truth, clipping_of(config), options)
    rules = Rules(
        experiment.seed, experiment.assignment.num_workers, len(experiment.params),
        options.projections, options.ban == "validate", clipping, delta,
        _aggregation(experiment, clipping, options),
    )  # fmt: skip
    transport = channel.open(
        seats,
        TransportOptions(worker_timeout=config["cluster"]["worker_timeout"], is_mesh=True),
        new_rows(0, experiment.flat.state[None].cpu()),
    )
    return Btard(experiment, transport, truth, options, rules, bool(config["profile"]))


def _aggregation(
    experiment: Experiment, clipping: Clipping, options: PeerOptions
) -> Callable[[Tensor], Centre]:
    """What a peer makes of the rows of its part: clipping, or without checks any rule."""
    if options.is_clipping:
        return lambda rows: centre(rows, clipping)

    def by_rule(rows: Tensor) -> Centre:
        num_corrupt = min(experiment.num_corrupt, max(0, (len(rows) - 1) // 2))
        return Centre(experiment.defence(rows, num_corrupt))

    return by_rule
