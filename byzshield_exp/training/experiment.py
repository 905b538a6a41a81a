"""The finished, cross-checked parts of one run, built from a plain configuration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from byzshield_exp.aggregators import Defence
from byzshield_exp.assignments import Assignment
from byzshield_exp.attacks import TIMING_KEYS, TimedAdversary, Timing
from byzshield_exp.binding import bind, checked, construct, imported, instance_of
from byzshield_exp.clusters.backend import chosen_backend
from byzshield_exp.datasets import Batches, Dataset
from byzshield_exp.distortion import WorstCase, most_without, worst_case
from byzshield_exp.errors import ConfigError
from byzshield_exp.networks import Flat
from byzshield_exp.optimizers import SCHEDULE_KEYS, scheduled, without_compiler
from byzshield_exp.streams import Stream, generator
from byzshield_exp.training import checks
from byzshield_exp.training.activations import Activations
from byzshield_exp.training.protocol import check_protocol
from byzshield_exp.training.task import build_task, try_network
from byzshield_exp.votes import resolve

_STEPS_TRIED = 20  # sets of liars that the checks look at, where they change with the step


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything a run needs, checked against each other.

    Attributes:
        assignment: who computes what.
        dataset: pictures and classes.
        batches: which samples make up a file.
        network: its parameters and running statistics are views of ``flat``.
        flat: float32.
        choose: ``choose(step) -> workers`` who lie at a step, counted from 0.
        forge: ``forge(knowledge) -> rows``; None: liars behave.
        cheats: by name ``cheat(move)``: how liars break a protocol of peers.
        vote: labels replicas.
        defence: ``defence(rows, num_corrupt) -> [d]``: pre-aggregators and the aggregator.
        make_optimizer: ``make_optimizer(params) -> (optimizer, scheduler)``; raises
            ``ConfigError``. Called on the server alone.
        num_byzantine: q.
        steps: of the run, counted from ``epochs`` where these are given.
        worst: the worst set of q workers; its upper bound is ``num_corrupt``.
        idle_reason: why the attack can do nothing, or ``""``.
        notes: warnings for the user, one line each.
        seed: of the run.
        worker_momentum: in [0, 1).
        is_stochastic: whether the network draws random numbers while it learns (dropout).
        is_poisoning_statistics: whether liars send false running statistics.
        activations: what the network keeps of a few samples for their backward pass.
        tau: the radius of centred clipping, once it was calibrated.
    """

    assignment: Assignment
    dataset: Dataset
    batches: Batches
    network: nn.Module
    flat: Flat
    choose: TimedAdversary
    forge: Callable[..., Tensor] | None
    cheats: Mapping[str, Callable[..., Any]]
    vote: Callable[..., Tensor]
    defence: Defence
    make_optimizer: Callable[[Tensor], Any]
    num_byzantine: int
    steps: int
    worst: WorstCase
    idle_reason: str
    notes: tuple[str, ...]
    seed: int
    worker_momentum: float
    is_stochastic: bool
    is_poisoning_statistics: bool
    activations: Activations
    tau: float | None = None

    @property
    def params(self) -> Float[Tensor, " d"]:
        """The parameters, float32; always the same tensor."""
        return self.flat.params

    @property
    def num_corrupt(self) -> int:
        """The most files that q workers can win: exact, or a proven upper bound."""
        return self.worst.upper_bound

    @property
    def is_attack_effective(self) -> bool:
        """Whether the attack can do anything in this configuration."""
        return not self.idle_reason

    @lru_cache(maxsize=64)  # noqa: B019  (an experiment lives as long as the process)
    def num_corrupt_without(self, absent: tuple[int, ...]) -> int:
        """``num_corrupt`` when these workers are absent and a majority of the others is enough."""
        return most_without(self.assignment, self.num_byzantine, absent)

    def defence_at(self, step: int) -> Defence:
        """The defence with the random buckets of a step."""
        return replace(
            self.defence, make_generator=partial(generator, self.seed, Stream.AGGREGATE, step)
        )

    @property
    def epsilon_hat(self) -> float:
        """``num_corrupt / f``, ByzShield's distortion fraction."""
        return self.num_corrupt / self.assignment.num_files


def build(config: Mapping[str, Any], worst: WorstCase | None = None) -> Experiment:
    """Bind the parts of one run, then check them against each other.

    Args:
        config: plain dictionaries and values, interpolations resolved.
        worst: the worst case, where it is known; all ranks must use the same.

    Raises:
        ConfigError: in one line, with the key, the value and the bound.
    """
    parts = _bind_parts(config, worst)
    config = {**config, "steps": parts.steps}
    assignment, forge, defence, batches = (
        parts.assignment,
        parts.forge,
        parts.defence,
        parts.batches,
    )
    num_files, num_statistics = assignment.num_files, len(parts.flat.statistics)
    sets = parts.choose.first_sets(_STEPS_TRIED)
    checks.check_attack_arguments(forge, num_files)
    checks.check_attack_shares(forge, sets)
    idle_reason = checks.find_idle_reason(
        config, assignment, forge, sets, parts.is_poisoning_statistics
    )
    left_out = checks.count_left_out(assignment, forge, sets)
    checks.check_left_out(config, assignment, left_out)
    checks.check_trusted_row(config)
    checks.check_defence(config, defence, num_files, left_out, parts.num_corrupt)
    checks.try_attack(config, assignment, forge, sets[0], parts.num_corrupt, defence)
    notes = (
        checks.note_worst_case(config, parts.worst),
        checks.note_batch(config, batches.batch_size, num_files),
        checks.note_poisoning(config, forge, num_statistics),
        checks.note_statistics(batches.file_size, num_statistics),
        checks.note_idle_attack(forge, idle_reason),
        checks.note_late_attack(config, forge, parts.choose),
        checks.note_lost_majority(config, num_files, parts.num_corrupt),
    )
    experiment = replace(parts, idle_reason=idle_reason, notes=tuple(filter(None, notes)))
    more = check_protocol(experiment, config)
    return replace(experiment, notes=(*experiment.notes, *more))


def _bind_parts(config: Mapping[str, Any], worst: WorstCase | None) -> Experiment:
    """Bind every group of the configuration once."""
    seed, num_byzantine, epochs = config["seed"], config["q"], config.get("epochs")
    assignment = instance_of(Assignment, "approach", config["approach"])
    checks.check_num_workers(config, assignment)
    worst = worst or _find_worst_case(assignment, num_byzantine)
    task = build_task(config)
    batch_size = checks.choose_batch_size(config, assignment.num_files)
    batches = Batches(task.dataset.num_train, batch_size, assignment.num_files, seed)
    trial = try_network(config, task, batches.file_size)
    forge = _bind_attack(config)
    is_poisoning = config["poison_statistics"] and forge is not None
    return Experiment(
        assignment=assignment,
        dataset=task.dataset,
        batches=batches,
        network=task.network,
        flat=task.flat,
        choose=_bind_adversary(
            config["adversary"], assignment=assignment, num_byzantine=num_byzantine, seed=seed,
            worst=worst,
        ),
        forge=forge,
        cheats=_bind_cheats(config),
        vote=_bind_vote(config, task.flat),
        defence=_bind_defence(config),
        make_optimizer=partial(_make_optimizer, config["optimizer"]),
        num_byzantine=num_byzantine,
        steps=batches.steps_in(epochs) if epochs else config["steps"],
        worst=worst,
        idle_reason="",
        notes=(),
        seed=seed,
        worker_momentum=config["worker_momentum"],
        is_stochastic=trial.draws,
        is_poisoning_statistics=is_poisoning and len(task.flat.statistics) > 0,
        activations=trial.activations,
    )  # fmt: skip


def _find_worst_case(assignment: Assignment, num_byzantine: int) -> WorstCase:
    try:
        return worst_case(assignment, num_byzantine)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _bind_adversary(choice: Mapping[str, Any], **given: Any) -> TimedAdversary:
    who = {key: value for key, value in choice.items() if key not in TIMING_KEYS}
    bound = bind("adversary", who, ("step",), **given)
    most, num_workers = given["num_byzantine"], given["assignment"].num_workers

    def choose(step: int) -> tuple[int, ...]:
        chosen = checked("adversary", bound, step=step)
        try:
            return checks.check_liars(chosen, most, num_workers)
        except ValueError as error:
            raise ConfigError(f"adversary._target_={who['_target_']!r} {error}") from error

    return TimedAdversary(choose, Timing.of(choice))


def _bind_attack(config: Mapping[str, Any]) -> "partial[Tensor] | None":
    """The attack; None for ``attack=none``, which takes no arguments."""
    choice = config["attack"]
    if not choice:
        return None
    if "_target_" not in choice:
        key, value = next(iter(choice.items()))
        name = config["choices"]["attack"]
        raise ConfigError(f"attack.{key}={value!r}: attack={name} takes no arguments")
    return bind("attack", choice, ("knowledge",))


def _bind_cheats(config: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """The cheats by name, in the order given."""
    cheats: dict[str, Callable[..., Any]] = {}
    for name, choice in config["cheat"].items():
        if not isinstance(choice, Mapping) or "_target_" not in choice:
            raise ConfigError(
                f"cheat.{name}={choice!r}: no such cheat is chosen "
                f"(cheat={config['choices']['cheat']})"
            )
        cheats[name] = bind(f"cheat.{name}", choice, ("move",))
    return cheats


def _make_optimizer(choice: Mapping[str, Any], params: Tensor) -> Any:
    """Make an optimizer with its schedule; a class of torch.optim knows nothing of schedules."""
    with without_compiler():
        target = imported("optimizer", choice)
        if not (isinstance(target, type) and issubclass(target, Optimizer)):
            made = construct("optimizer", choice, params=params)
            checks.check_optimizer(choice, made)
            return made
        timing = {key: value for key, value in choice.items() if key in SCHEDULE_KEYS}
        own = {key: value for key, value in choice.items() if key not in SCHEDULE_KEYS}
        optimizer = construct("optimizer", own, params=[params])
        try:
            return scheduled(optimizer, **timing)
        except ValueError as error:
            raise ConfigError(f"optimizer={target.__name__}: {error}") from error


def _bind_vote(config: Mapping[str, Any], flat: Flat) -> "partial[Tensor]":
    gradient_size = len(flat.params) if len(flat.statistics) else None
    vote = bind("vote", config["vote"], ("replicas",), gradient_size=gradient_size)
    try:
        return resolve(vote, is_local=chosen_backend(config) in ("alone", "nccl"))
    except ValueError as error:
        raise ConfigError(f"vote.{error}") from error


def _bind_defence(config: Mapping[str, Any]) -> Defence:
    """The rule and the pre-aggregators, in the order given; each lies under its own name."""
    reserved = ("rows", "num_corrupt", "generator")
    for name, choice in config["pre_aggregator"].items():
        if not isinstance(choice, Mapping) or "_target_" not in choice:
            raise ConfigError(
                f"pre_aggregator.{name}={choice!r}: no such pre-aggregator is chosen "
                f"(pre_aggregator={config['choices']['pre_aggregator']})"
            )
    return Defence(
        bind("aggregator", config["aggregator"], (*reserved, "previous")),
        [
            bind(f"pre_aggregator.{name}", choice, reserved)
            for name, choice in config["pre_aggregator"].items()
        ],
    )
