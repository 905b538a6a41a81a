"""One step of a protocol: from parameters to an update, on every rank."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byzshield_exp.aggregators import NonFiniteRows, Unclean, trimmed_mean
from byzshield_exp.attacks import Knowledge, PastParameters, check_forged, forged_files
from byzshield_exp.clusters import DATA, HOST, Cluster, Inbox, Statement
from byzshield_exp.clusters.fingerprint import bit_entries, host_name
from byzshield_exp.errors import RunError, TooFewReplicas
from byzshield_exp.networks import are_variances
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import Lies, TrueGradients
from byzshield_exp.training.stopwatch import TOTAL, Stopwatch
from byzshield_exp.votes import (
    ABSENT,
    NO_WINNER,
    count_disagreements,
    is_exact,
    is_finite,
    winners,
)

_NAMED = 5  # files or workers of a line
_DATA_DIGITS = 16  # of the digest of the data, where a person reads it
_POISON = -100.0  # times the true running statistics


@dataclass(frozen=True)
class Report:
    """What the server saw in a step.

    Attributes:
        statistics: ``[s]``, the network's next running statistics.
        loss: mean over files of the middle loss that the file's holders report, in nats.
        distorted_files: files won by liars alone.
        files_without_majority: files left out of the step.
        vote_disagreements: replicas outside the largest class of their file.
        nonfinite_files: files whose winner has a NaN or Inf.
        nonfinite: where these are more than may be corrupt, a line about them and their senders;
            the update is then NaN.
        byzantine: who lied.
        absent: workers that did not answer in time, or are gone.
        rejected: messages that were not what they should be.
        caught: workers that sent another row than their digest said.
        events: lines for a person.
        bytes_in: bytes that the server received.
        files_computed: true gradients per rank since the start of the run.
        seconds: per phase, of the server, and of the slowest rank with workers.
        profile: the same and more for every rank; None unless it was asked for.
    """

    statistics: Float[Tensor, " s"]
    loss: float
    distorted_files: int
    files_without_majority: int
    vote_disagreements: int
    nonfinite_files: int
    nonfinite: str
    byzantine: tuple[int, ...]
    absent: tuple[int, ...]
    rejected: int
    caught: tuple[int, ...]
    events: list[str]
    bytes_in: int
    files_computed: list[int]
    seconds: dict[str, float]
    profile: dict[str, Any] | None


@dataclass
class ParameterServer:
    """Workers send one gradient per file; the server votes per file and aggregates the winners.

    Attributes:
        experiment: the parts.
        cluster: this process's place.
        truth: the gradients that this process computes.
        majority_of: whether a class needs a majority of all r replicas or of those that came.
        profiles: whether reports have a profile.
        watch: seconds per phase of the current step.
        state: the server's tensors that outlive a step (worker momentum), for the checkpoint.
    """

    experiment: Experiment
    cluster: Cluster
    truth: TrueGradients
    majority_of: Literal["all", "present"] = "all"
    profiles: bool = False
    watch: Stopwatch = field(default_factory=Stopwatch)
    state: dict[str, Tensor] = field(default_factory=dict)
    _attack_memory: dict[str, Any] = field(default_factory=dict)
    _computed: dict[int, int] = field(default_factory=dict)
    _is_running: bool = False

    def __post_init__(self) -> None:
        experiment = self.experiment
        if self.profiles and experiment.params.device.type == "cuda":
            self.watch = Stopwatch(torch.cuda.synchronize)
        self._past = PastParameters(experiment.forge, experiment.params, self.state)
        self._are_variances = are_variances(experiment.network).to(experiment.params.device)

    def check_replicas(self) -> None:
        """Compare the data over all ranks, and file 0's gradient where replicas must be equal.

        Raises:
            RunError: naming the ranks that differ, and why as far as they say it.
        """
        if self.cluster.world_size == 1:
            return
        data, digest = self.experiment.dataset.digest, None
        if not self.cluster.is_server:
            row = self._first_row() if is_exact(self.experiment.vote) else b""
            digest = sha256(row + data).digest()
        self.cluster.compare_digests(digest, self._introduction(data))

    def _first_row(self) -> bytes:
        self.truth.begin(0)
        row = self.truth.message(0).cpu().numpy().tobytes()
        self.truth.num_computed = 0
        return row

    def _introduction(self, data: bytes) -> dict[str, str]:
        """What other ranks may want to know of this one where their bits differ."""
        return {
            HOST: host_name(),
            DATA: data.hex()[:_DATA_DIGITS],
            "precision": self.truth.precision,
            **bit_entries(self.experiment.params.device.type),
        }

    def step(self, step: int) -> tuple[Float[Tensor, " d"] | None, Report | None]:
        """Compute, send, vote and aggregate; the update and report are None off the server.

        Raises:
            TooFewReplicas: if too many workers are gone.
            RunError: if nothing can be forged, or the winners cannot be aggregated.
        """
        if not self._is_running:  # the first step after a resume, or of all
            for rows in self._past.known(step):
                self.cluster.share(rows)
            self._is_running = True
        liars = self.experiment.choose(step)
        self._work(step, liars)
        self._past.remember(step)
        if not self.cluster.is_server or self.cluster.world_size == 1:
            self._finish_work(step)
        with self.watch("gather"):
            inbox = self.cluster.gather(step)
        return (None, None) if inbox is None else self._serve(inbox, step, liars)

    def _work(self, step: int, liars: tuple[int, ...]) -> None:
        """Send what the workers of this process send: the truth or lies."""
        lying = set(liars) if self.experiment.forge is not None else set()
        honest_holders, lying_holders = (
            self._holders(worker for worker in self.cluster.workers if (worker in lying) == lies)
            for lies in (False, True)
        )
        self.truth.begin(step)
        with self.watch("data"):
            self.truth.load(honest_holders)
        for file in self._compute(sorted(honest_holders)):
            row, loss = self.truth.message(file), float(self.truth.losses[file])
            with self.watch("send"):
                for worker in honest_holders[file]:
                    self.cluster.put(step, worker, file, row, loss)
        with self.watch("attack"):
            lies = self._forge(step, liars, sorted(lying_holders))
        with self.watch("send"):
            for file, workers in lying_holders.items():
                for worker in workers:
                    loss = float(self.truth.losses[file])
                    self.cluster.put(step, worker, file, lies.message(file), loss)

    def _holders(self, workers: Iterable[int]) -> dict[int, list[int]]:
        """By file those of these workers that hold it."""
        holders: dict[int, list[int]] = {}
        for worker in workers:
            for file in self.experiment.assignment.files_of_worker[worker].tolist():
                holders.setdefault(file, []).append(worker)
        return holders

    def _compute(self, files: Sequence[int]) -> Iterator[int]:
        """Compute files; where they travel, only so many at a time as there are threads."""
        at_once = len(files) if self.cluster.world_size == 1 else self.truth.num_threads
        for start in range(0, len(files), max(1, at_once)):
            some = files[start : start + at_once]
            with self.watch("compute"):
                self.truth.compute(some)
            yield from some

    def _finish_work(self, step: int) -> None:
        seconds, cpu_seconds = (
            (dict(self.watch.seconds), dict(self.watch.cpu_seconds))
            if self.cluster.is_server  # whose step is not over
            else self.watch.reset()
        )
        bytes_in, bytes_out = self.cluster.traffic
        self.cluster.finish(
            step,
            Statement(seconds, cpu_seconds, self.truth.num_computed, bytes_out, bytes_in),
        )

    def _forge(self, step: int, liars: tuple[int, ...], files: Sequence[int]) -> Lies:
        experiment = self.experiment
        if experiment.forge is None or not files:
            return Lies([], self.truth.blank_row().expand(0, -1))
        knowledge = Knowledge(
            truth=self.truth,
            assignment=experiment.assignment,
            liars=liars,
            files=tuple(files),
            seed=experiment.seed,
            step=step,
            num_corrupt=experiment.num_corrupt,
            defence=experiment.defence_at(step),
            past=self._past.at,
            memory=self._attack_memory,
        )
        try:
            rows = experiment.forge(knowledge)
            check_forged(rows, len(files), len(experiment.params))
        except (Unclean, NonFiniteRows):  # nothing honest to go by: the server's policy decides
            rows = self.truth.rows(files)
        except ValueError as error:
            raise RunError(f"step {step + 1}: the attack {error}") from error
        return Lies(files, self._with_statistics(rows, files, liars))

    def _with_statistics(
        self, rows: Float[Tensor, "m d"], files: Sequence[int], liars: tuple[int, ...]
    ) -> Float[Tensor, "m d_plus_s"]:
        """Forged rows with the running statistics that the liars send behind them."""
        if self.truth.num_statistics == 0:
            return rows
        self.truth.compute(files)
        size = rows.shape[1]
        statistics = torch.stack([self.truth.message(file)[size:] for file in files])
        if self.experiment.is_poisoning_statistics:
            forged = forged_files(self.experiment.forge, self.experiment.assignment, liars)
            poisoned = [forged is None or file in forged for file in files]
            statistics[poisoned] *= _POISON
        return torch.cat([rows, statistics], dim=1)

    def _serve(
        self, inbox: Inbox, step: int, liars: tuple[int, ...]
    ) -> tuple[Float[Tensor, " d"], Report]:
        with self.watch("vote"):
            if self.majority_of == "present":  # num_corrupt is counted without them
                inbox.forget(inbox.absent, self.experiment.assignment.workers_of_file)
            labels = self.experiment.vote(inbox.replicas)
            finite = is_finite(inbox.rows, labels) if inbox.finite is None else inbox.finite
            self._check_presence(labels, inbox, step)
            places = winners(labels, finite, self._needed(labels))
            classes = _classes(labels, places)
        with self.watch("deliver"):
            files, rows = self.cluster.deliver(classes)
        self._leave_out({file: classes[file] for file in classes.keys() - set(files)}, places, step)
        won = places != NO_WINNER
        bad = won & ~finite.gather(1, places.clamp_min(0).unsqueeze(1)).squeeze(1)
        nonfinite, size = "", len(self.experiment.params)
        with self.watch("aggregate"):
            try:
                rows = rows.to(self.experiment.params.device)
                rows[bad[files].to(rows.device)] = torch.nan  # also those with bad statistics alone
                num_corrupt = self._num_corrupt(inbox)
                statistics = self._aggregate_statistics(rows[:, size:], num_corrupt)
                gradients = rows[:, :size] if rows.shape[1] > size else rows
                update = self._aggregate(gradients, files, bad, num_corrupt, step)
            except NonFiniteRows as error:
                update = torch.full_like(self.experiment.params, torch.nan)
                nonfinite = f"step {step + 1}: {error}; {self._senders(labels, places, bad)}"
        events, self.cluster.events = self.cluster.events, []
        seconds, cpu_seconds = self.watch.reset()
        return update, Report(
            statistics=statistics,
            loss=_middle_loss(inbox.losses),
            distorted_files=self._count_won(labels, places, liars),
            files_without_majority=int((~won).sum()),
            vote_disagreements=count_disagreements(labels),
            nonfinite_files=int(bad.sum()),
            nonfinite=nonfinite,
            byzantine=liars,
            absent=inbox.absent,
            rejected=inbox.rejected,
            caught=tuple(sorted({worker for worker, _ in self.cluster.caught})),
            events=events,
            bytes_in=inbox.bytes_in,
            files_computed=self._files_computed(inbox),
            seconds=_slowest(inbox.statements.values()) | _without_total(seconds),
            profile=self._profile(inbox, seconds, cpu_seconds) if self.profiles else None,
        )

    def _check_presence(self, labels: Int[Tensor, "f r"], inbox: Inbox, step: int) -> None:
        """Stop where too few replicas of a file came to go on with."""
        assignment = self.experiment.assignment
        needed = assignment.majority if self.majority_of == "all" else 1
        lost = ((labels != ABSENT).sum(dim=1) < needed).nonzero().flatten().tolist()
        if lost and inbox.absent:
            raise TooFewReplicas(
                f"step {step + 1}: without workers {_numbers(inbox.absent)} fewer than {needed} of "
                f"the {assignment.replication} replicas are left of files {_numbers(lost)}"
            )

    def _needed(self, labels: Int[Tensor, "f r"]) -> int | Int[Tensor, " f"]:
        """How many equal replicas win a file."""
        if self.majority_of == "all":
            return self.experiment.assignment.majority
        return (labels != ABSENT).sum(dim=1) // 2 + 1

    def _leave_out(
        self, undelivered: dict[int, list[int]], places: Int[Tensor, " f"], step: int
    ) -> None:
        """Files have no winner whose class was caught to the last; others stop the run."""
        workers = self.experiment.assignment.workers_of_file
        for file, members in sorted(undelivered.items()):
            holders = {(int(workers[file, place]), file) for place in members}
            if not holders <= self.cluster.caught:
                gone = sorted(worker for worker, _ in holders - self.cluster.caught)
                raise TooFewReplicas(
                    f"step {step + 1}: nobody is left to send the row of file {file}: workers "
                    f"{_numbers(gone)} had it"
                )
            places[file] = NO_WINNER

    def _aggregate(
        self,
        rows: Float[Tensor, "n d"],
        files: list[int],
        bad: Bool[Tensor, " f"],
        num_corrupt: int,
        step: int,
    ) -> Float[Tensor, " d"]:
        if not files:
            raise RunError(f"step {step + 1}: no file has a majority of equal replicas")
        rows = self._with_momentum(rows, files, bad)
        defence, previous = self.experiment.defence_at(step), self.state.get("previous_update")
        try:
            update = defence.for_rows(files)(rows, num_corrupt, previous)
        except NonFiniteRows:
            raise
        except ValueError as error:
            lost = len(bad) - len(files)
            ties = f"; {lost} files have no majority" if lost else ""
            raise RunError(f"step {step + 1}: {error}{ties}") from error
        if defence.is_previous_read:
            self.state["previous_update"] = update.clone()
        return update

    def _num_corrupt(self, inbox: Inbox) -> int:
        """The most winners that may be forged."""
        if self.majority_of == "present" and inbox.absent:
            return self.experiment.num_corrupt_without(inbox.absent)
        return self.experiment.num_corrupt

    def _aggregate_statistics(
        self, statistics: Float[Tensor, "n s"], num_corrupt: int
    ) -> Float[Tensor, " s"]:
        """The coordinate-wise trimmed mean of the finite winners; no variance below 0.

        The variance of few samples is skewed: its median would be too small, its mean is not.
        """
        usable = statistics[statistics.isfinite().all(dim=1)]
        if usable.numel() == 0:
            return self.experiment.flat.statistics.clone()
        left = max(0, num_corrupt - len(statistics) + len(usable))
        trimmed = min(left, (len(usable) - 1) // 2)  # at most to the median
        found = trimmed_mean(usable, trimmed)
        return torch.where(self._are_variances, found.clamp_min(0), found)

    def _with_momentum(
        self, rows: Float[Tensor, "n d"], files: list[int], bad: Bool[Tensor, " f"]
    ) -> Float[Tensor, "n d"]:
        """Worker momentum, kept per file after the vote: ``m <- beta m + (1 - beta) row``.

        A row that is not finite leaves the memory of its file as it was, and is passed on.
        """
        beta = self.experiment.worker_momentum
        if beta == 0:
            return rows
        shape = (self.experiment.assignment.num_files, rows.shape[1])
        memory = self.state.setdefault("worker_momentum", rows.new_zeros(shape))
        for place, file in enumerate(files):
            if not bad[file]:
                memory[file].mul_(beta).add_(rows[place], alpha=1 - beta)
                rows[place] = memory[file]
        return rows

    def _senders(
        self, labels: Int[Tensor, "f r"], places: Int[Tensor, " f"], bad: Bool[Tensor, " f"]
    ) -> str:
        """Which workers sent the rows that are not finite, by file."""
        chosen = labels.gather(1, places.clamp_min(0).unsqueeze(1))
        workers = self.experiment.assignment.workers_of_file
        named = (
            f"file {file} from workers {workers[file][labels[file] == chosen[file]].tolist()}"
            for file in bad.nonzero().flatten().tolist()[:_NAMED]
        )
        more = int(bad.sum()) - _NAMED
        return ", ".join(named) + (f" and {more} files more" if more > 0 else "")

    def _files_computed(self, inbox: Inbox) -> list[int]:
        """Per rank, since the start of the run; of a rank that is absent, what it last said."""
        for rank, statement in inbox.statements.items():
            self._computed[rank] = statement.files_computed
        return [self._computed.get(rank, 0) for rank in range(self.cluster.world_size)]

    def _profile(
        self, inbox: Inbox, seconds: dict[str, float], cpu_seconds: dict[str, float]
    ) -> dict[str, Any]:
        """Seconds per phase and bytes, each a list over ranks."""
        ranks = range(self.cluster.world_size)
        own = Statement(seconds, cpu_seconds, 0, inbox.bytes_out, inbox.bytes_in)
        by_rank = inbox.statements | {0: own}
        tables = {}
        for name in ("seconds", "cpu_seconds"):
            phases = {phase for said in by_rank.values() for phase in getattr(said, name)}
            tables[name] = {
                phase: [
                    getattr(by_rank[rank], name).get(phase, 0.0) if rank in by_rank else None
                    for rank in ranks
                ]
                for phase in sorted(phases)
            }
        counts = {
            name: [getattr(by_rank[rank], name) if rank in by_rank else None for rank in ranks]
            for name in ("bytes_in", "bytes_out")
        }
        return tables | counts

    def _count_won(
        self, labels: Int[Tensor, "f r"], places: Int[Tensor, " f"], liars: tuple[int, ...]
    ) -> int:
        """Files whose winning class has no honest member, while the liars do lie."""
        if self.experiment.forge is None:
            return 0
        honest = ~torch.isin(
            self.experiment.assignment.workers_of_file, torch.tensor(liars, dtype=torch.int64)
        )
        chosen = labels.gather(1, places.clamp_min(0).unsqueeze(1))
        supported = ((labels == chosen) & honest).any(dim=1)
        return int((~supported & (places != NO_WINNER)).sum())


def _classes(labels: Int[Tensor, "f r"], places: Int[Tensor, " f"]) -> dict[int, list[int]]:
    """By file that has a winner the places of its class, the winner first."""
    classes = {}
    for file, (marks, place) in enumerate(zip(labels.tolist(), places.tolist(), strict=True)):
        if place != NO_WINNER:
            same = [at for at, mark in enumerate(marks) if mark == marks[place] and at != place]
            classes[file] = [place, *same]
    return classes


def _slowest(statements: Iterable[Statement]) -> dict[str, float]:
    """Per phase, the longest; phases that took no time are left out."""
    longest: dict[str, float] = {}
    for statement in statements:
        for phase, value in _without_total(statement.seconds).items():
            if value:
                longest[phase] = max(value, longest.get(phase, 0.0))
    return longest


def _without_total(seconds: dict[str, float]) -> dict[str, float]:
    return {phase: value for phase, value in seconds.items() if phase != TOTAL}


def _numbers(values: Sequence[int]) -> str:
    named = ", ".join(map(str, values[:_NAMED]))
    return named + (f" and {len(values) - _NAMED} more" if len(values) > _NAMED else "")


def _middle_loss(reported: Float[Tensor, "f r"]) -> float:
    """The mean over files of the (lower) median reported loss, NaNs left out.

    Losses are not voted, so that one liar among a file's holders must not set the metric.
    """
    return float(reported.nanmedian(dim=1).values.nanmean())
