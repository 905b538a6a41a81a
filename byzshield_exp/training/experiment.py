"""The finished, cross-checked parts of one run, built from a plain configuration."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from byzshield_exp.aggregators import Defence, NonFiniteRows
from byzshield_exp.assignments import Assignment
from byzshield_exp.attacks import (
    alie,
    alie_z,
    check_attack,
    check_options,
    forged_files,
    innermost,
    option,
)
from byzshield_exp.binding import bind, checked, construct
from byzshield_exp.datasets import Batches, Dataset, nearest_batch_size
from byzshield_exp.distortion import WorstCase, most_without, worst_case
from byzshield_exp.errors import ConfigError, first_line
from byzshield_exp.networks import Flat
from byzshield_exp.streams import Stream, generator
from byzshield_exp.training.task import build_task, draws_random_numbers
from byzshield_exp.votes import resolve

_ROUGH = 8  # samples of a file
_STEPS_TRIED = 20  # sets of liars looked at for the warnings, where they change with the step


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything a run needs, checked against each other.

    Attributes:
        assignment: who computes what.
        dataset: pictures and classes.
        batches: which samples make up a file.
        network: its parameters and running statistics are views of ``flat``.
        flat: float32.
        choose: ``choose(step) -> workers`` who lie.
        forge: ``forge(knowledge) -> rows``; None: liars behave.
        vote: labels replicas.
        defence: ``defence(rows, num_corrupt) -> [d]``: pre-aggregators and the aggregator.
        make_optimizer: ``make_optimizer(params) -> (optimizer, scheduler)``; raises
            ``ConfigError``. Called on the server alone: torch's optimizers cost a second to import.
        num_byzantine: q.
        worst: the worst set of q workers; its upper bound is ``num_corrupt``.
        attack_effective: False where the attack can do nothing.
        notes: one warning a line, for a person.
        seed: of the run.
        worker_momentum: in [0, 1).
        draws: whether the network draws random numbers while it learns (dropout).
        poisons_statistics: whether liars send false running statistics.
    """

    assignment: Assignment
    dataset: Dataset
    batches: Batches
    network: nn.Module
    flat: Flat
    choose: Callable[[int], tuple[int, ...]]
    forge: Callable[..., Tensor] | None
    vote: Callable[..., Tensor]
    defence: Defence
    make_optimizer: Callable[[Tensor], Any]
    num_byzantine: int
    worst: WorstCase
    attack_effective: bool
    notes: tuple[str, ...]
    seed: int
    worker_momentum: float
    draws: bool
    poisons_statistics: bool

    @property
    def params(self) -> Float[Tensor, " d"]:
        """The parameters, float32; always the same tensor."""
        return self.flat.params

    @property
    def num_corrupt(self) -> int:
        """The most files that q workers can win: exact, or a proven upper bound."""
        return self.worst.upper_bound

    @lru_cache(maxsize=64)  # noqa: B019  (an experiment lives as long as the process)
    def num_corrupt_without(self, absent: tuple[int, ...]) -> int:
        """The same when these workers are absent and a majority of the others is enough."""
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
    """Build and cross-check the parts of one run.

    Args:
        config: plain dictionaries and values, interpolations resolved.
        worst: the worst case, where it is known; all ranks must use the same.

    Raises:
        ConfigError: in one line, with the key, the value and the bound.
    """
    notes: list[str] = []
    seed, num_byzantine = config["seed"], config["q"]
    assignment: Assignment = construct("approach", config["approach"])
    if assignment.num_workers != config["K"]:
        raise ConfigError(
            f"K={config['K']}: the placement is for K={assignment.num_workers} workers"
        )
    worst = worst or _worst(assignment, num_byzantine)
    if not worst.exact:
        notes.append(
            f"the worst q={num_byzantine} of K={config['K']} workers win {worst.count} to "
            f"{worst.upper_bound} files, the search was ended: num_corrupt={worst.upper_bound}"
        )
    task = build_task(config)
    batches = Batches(
        task.dataset.num_train, _batch_size(config, assignment, notes), assignment.num_files, seed
    )
    choose = bind(
        "adversary", config["adversary"], reserved=("step",), assignment=assignment,
        num_byzantine=num_byzantine, seed=seed, worst=worst,
    )  # fmt: skip
    sets = [checked("adversary", choose, step=step) for step in range(_STEPS_TRIED)]
    forge = (
        bind("attack", config["attack"], ("knowledge",)) if _is_chosen(config, "attack") else None
    )
    if forge is not None:
        check_options("attack", forge, assignment.num_files)
    poisons = config["poison_statistics"] and len(task.flat.statistics) > 0 and forge is not None
    if config["poison_statistics"] and not poisons:
        why = "attack=none" if forge is None else "the network has no running statistics"
        notes.append(f"poison_statistics=true does nothing: {why}")
    if len(task.flat.statistics) and batches.file_size < _ROUGH:
        notes.append(
            f"files of {batches.file_size}: BatchNorm's statistics are rough below {_ROUGH} samples"
        )
    why_idle = _why_idle(forge, assignment, sets, config["steps"], poisons)
    if forge is not None and why_idle:
        notes.append(f"the attack does nothing: {why_idle}")
    left_out = (
        max(_blocked(assignment, liars) for liars in sets) if _can_tie(assignment, forge) else 0
    )
    defence = _defence(config, assignment, worst.upper_bound, left_out, notes)
    if forge is not None and num_byzantine > 0 and sets[0]:
        _try_attack(config, forge, assignment, sets[0], worst.upper_bound, defence)
    return Experiment(
        assignment=assignment,
        dataset=task.dataset,
        batches=batches,
        network=task.network,
        flat=task.flat,
        choose=choose,
        forge=forge,
        vote=_vote(config, task.flat),
        defence=defence,
        make_optimizer=lambda flat: construct("optimizer", config["optimizer"], params=flat),
        num_byzantine=num_byzantine,
        worst=worst,
        attack_effective=not why_idle,
        notes=tuple(notes),
        seed=seed,
        worker_momentum=config["worker_momentum"],
        draws=draws_random_numbers(config, task, batches.file_size),
        poisons_statistics=poisons,
    )


def _is_chosen(config: Mapping[str, Any], group: str) -> bool:
    """Whether a group that may be ``none`` names a function; ``none`` takes no arguments."""
    choice = config[group]
    if choice and "_target_" not in choice:
        key, value = next(iter(choice.items()))
        name = config["choices"][group]
        raise ConfigError(f"{group}.{key}={value!r}: {group}={name} takes no arguments")
    return bool(choice)


def _can_tie(assignment: Assignment, forge: object) -> bool:
    is_even = assignment.replication % 2 == 0
    return forge is not None and is_even and forged_files(forge, assignment, ()) is None


def _vote(config: Mapping[str, Any], flat: Flat) -> "partial[Tensor]":
    gradient_size = len(flat.params) if len(flat.statistics) else None
    bound = bind("vote", config["vote"], ("replicas",), gradient_size=gradient_size)
    try:
        return resolve(bound, is_local=config["choices"]["cluster"] == "local")
    except ValueError as error:
        raise ConfigError(f"vote.{error}") from error


def _worst(assignment: Assignment, num_byzantine: int) -> WorstCase:
    try:
        return worst_case(assignment, num_byzantine)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _batch_size(config: Mapping[str, Any], assignment: Assignment, notes: list[str]) -> int:
    wanted, files = config["batch_size"], assignment.num_files
    if wanted == "auto":
        return nearest_batch_size(files)
    if not isinstance(wanted, int) or wanted < 1:
        raise ConfigError(f"batch_size={wanted!r} must be auto or a whole number from 1")
    lower, upper = wanted // files * files, -(-wanted // files) * files
    if lower == upper:
        return wanted
    if config["batch_rounding"] == "down" and lower > 0:
        notes.append(f"batch_size={wanted} is rounded down to {lower}, a multiple of f={files}")
        return lower
    near = f"{lower} and {upper}" if lower else f"{upper}"
    raise ConfigError(
        f"batch_size={wanted} does not split into f={files} equal files: nearest valid are {near}"
    )


def _why_idle(
    forge: "partial[Tensor] | None",
    assignment: Assignment,
    sets: list[tuple[int, ...]],
    steps: int,
    poisons: bool,
) -> str:
    """Why the attack can do nothing in this configuration, or nothing."""
    if forge is None:
        return "attack=none"
    num_byzantine = len(sets[0])
    if num_byzantine == 0:
        return "nobody lies"
    if not any(_blocked(assignment, liars) for liars in sets):
        return f"every file keeps a majority of honest replicas against these q={num_byzantine}"
    if not any(forged_files(forge, assignment, liars) != set() for liars in sets):
        return f"no file is left to lie on against these q={num_byzantine}"
    if poisons:
        return ""
    delay = option(forge, "delay")
    if delay is not None and delay >= steps:
        return f"its delay of {delay} steps does not end within steps={steps}"
    inner = innermost(forge)
    if inspect.unwrap(getattr(inner, "func", inner)) is inspect.unwrap(alie):
        z = option(forge, "z")
        try:
            z = alie_z(assignment.num_workers, num_byzantine) if z is None else z
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if z == 0:
            return f"the z of alie is 0 at K={assignment.num_workers} q={num_byzantine}"
    return ""


def _try_attack(
    config: Mapping[str, Any],
    forge: "partial[Tensor]",
    assignment: Assignment,
    liars: tuple[int, ...],
    num_corrupt: int,
    defence: Defence,
) -> None:
    """Bad arguments of an attack of ours stop the run before it starts; a few zeros do for it."""
    function: Any = innermost(forge)
    if not getattr(function, "func", function).__module__.startswith("byzshield_exp."):
        return
    try:
        check_attack(forge, assignment, liars, num_corrupt, defence)
    except ValueError as error:
        raise ConfigError(f"attack={config['choices']['attack']} {error}") from error


def _blocked(assignment: Assignment, liars: tuple[int, ...]) -> int:
    """Files that liars can win or, with an even r, leave without a majority."""
    holders = assignment.incidence[list(liars)].sum(dim=0)
    return int((assignment.replication - holders < assignment.majority).sum())


def _defence(
    config: Mapping[str, Any],
    assignment: Assignment,
    num_corrupt: int,
    left_out: int,
    notes: list[str],
) -> Defence:
    """The defence, tried on zeros: an undefined (n, num_corrupt) stops before the start."""
    files, chosen, reserved = assignment.num_files, config["choices"], ("rows", "num_corrupt")
    defence = Defence(
        bind("aggregator", config["aggregator"], (*reserved, "generator", "previous")),
        [
            bind(f"pre_aggregator.{name}", choice, (*reserved, "generator"))
            for name, choice in _pre_aggregators(config).items()
        ],
    )
    if left_out == files:
        raise ConfigError(
            f"q={config['q']} workers can leave all f={files} files without a majority of "
            f"{assignment.majority} equal replicas"
        )
    if "bucketing" in _pre_aggregators(config) and "trusted" in config["aggregator"]:
        raise ConfigError(
            f"aggregator={chosen['aggregator']} trusts a row: after bucketing there are none"
        )
    for rows, lost in product({files, files - left_out}, {0, num_corrupt}):
        if lost >= rows:
            continue
        try:
            result = defence.for_rows(range(rows))(_zeros(rows, lost), num_corrupt)
            _check_result(result)
        except NonFiniteRows:  # the trusted row is one of the lost
            continue
        except Exception as error:  # a rule of the user's own may raise anything
            said = first_line(error)
            if not isinstance(error, ValueError | IndexError):
                said = f"raises {type(error).__name__}: {said}"
            ties = f" and leave {left_out} without a majority" if left_out else ""
            before = f"pre_aggregator={chosen['pre_aggregator']} " if defence.before else ""
            raise ConfigError(
                f"{before}aggregator={chosen['aggregator']} {said} "
                f"(q={config['q']} workers can win {num_corrupt} of f={files} files{ties}"
                f"{f'; {lost} rows set aside as not finite' if lost else ''})"
            ) from error
    if 2 * num_corrupt >= files:
        notes.append(
            f"q={config['q']} workers can win {num_corrupt} of f={files} files: no aggregator "
            "withstands half of its rows being forged"
        )
    return defence


def _zeros(num_rows: int, lost: int) -> Tensor:
    """Zeros; the last rows are not finite, as many as a rule may have to set aside."""
    rows = torch.zeros(num_rows, 2)
    rows[num_rows - lost :] = torch.nan
    return rows


def _check_result(result: Any) -> None:
    """Check what a rule made of rows of two coordinates."""
    if not isinstance(result, Tensor) or result.shape != (2,):
        got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"must return a tensor [d], got {got} for d=2")


def _pre_aggregators(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By name, in the order given; every file of the group lies under its own name."""
    for name, choice in config["pre_aggregator"].items():
        if not isinstance(choice, Mapping) or "_target_" not in choice:
            raise ConfigError(
                f"pre_aggregator.{name}={choice!r}: no such pre-aggregator is chosen "
                f"(pre_aggregator={config['choices']['pre_aggregator']})"
            )
    return dict(config["pre_aggregator"])
