"""Checks across the parts of a run: each refuses or notes one thing.

``check_...`` and ``try_...`` raise a ``ConfigError`` in one line with the key, the value and the
bound; ``note_...`` returns a warning for the user, or ``""``.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from byzshield_exp.aggregators import Defence, NonFiniteRows
from byzshield_exp.assignments import Assignment
from byzshield_exp.attacks import (
    Setting,
    TimedAdversary,
    check_arguments,
    check_attack,
    forged_files,
    is_declared,
    shares,
    why_idle,
)
from byzshield_exp.datasets import nearest_batch_size
from byzshield_exp.distortion import WorstCase
from byzshield_exp.errors import ConfigError, PartError, located, typed

_ROUGH = 8  # samples of a file, below which BatchNorm's statistics are noisy

Config = Mapping[str, Any]
Forge = Callable[..., Tensor]
Liars = tuple[int, ...]


def check_num_workers(config: Config, assignment: Assignment) -> None:
    """Refuse a placement for another K.

    Raises:
        ConfigError: with both numbers.
    """
    if assignment.num_workers != config["K"]:
        raise ConfigError(
            f"K={config['K']}: the placement is for K={assignment.num_workers} workers"
        )


def choose_batch_size(config: Config, num_files: int) -> int:
    """The batch size of a run; refuse one that does not split into equal files.

    Raises:
        ConfigError: with the nearest sizes that do.
    """
    wanted = config["batch_size"]
    if wanted == "auto":
        return nearest_batch_size(num_files)
    if not isinstance(wanted, int) or wanted < 1:
        raise ConfigError(f"batch_size={wanted!r} must be auto or a whole number from 1")
    lower, upper = wanted // num_files * num_files, -(-wanted // num_files) * num_files
    if lower == upper or (config["batch_rounding"] == "down" and lower > 0):
        return lower
    near = f"{lower} and {upper}" if lower else f"{upper}"
    raise ConfigError(
        f"batch_size={wanted} does not split into f={num_files} equal files: "
        f"nearest valid are {near}"
    )


def note_batch(config: Config, batch_size: int, num_files: int) -> str:
    """Note a batch that was rounded down."""
    wanted = config["batch_size"]
    if wanted in ("auto", batch_size):
        return ""
    return f"batch_size={wanted} is rounded down to {batch_size}, a multiple of f={num_files}"


def note_worst_case(config: Config, worst: WorstCase) -> str:
    """Note a search for the worst case that hit its limit: ``num_corrupt`` is then a bound only."""
    if worst.exact:
        return ""
    return (
        f"the worst q={config['q']} of K={config['K']} workers win {worst.count} to "
        f"{worst.upper_bound} files, the search was ended: num_corrupt={worst.upper_bound}"
    )


def note_poisoning(config: Config, forge: Forge | None, num_statistics: int) -> str:
    """Note that ``poison_statistics`` is asked for where there is nothing to poison."""
    if not config["poison_statistics"] or (forge is not None and num_statistics):
        return ""
    why = "attack=none" if forge is None else "the network has no running statistics"
    return f"poison_statistics=true does nothing: {why}"


def note_statistics(file_size: int, num_statistics: int) -> str:
    """Note files too small for BatchNorm."""
    if num_statistics == 0 or file_size >= _ROUGH:
        return ""
    return f"files of {file_size}: BatchNorm's statistics are rough below {_ROUGH} samples"


def check_attack_arguments(forge: Forge | None, num_files: int) -> None:
    """Refuse arguments of an attack that are out of the range that it declares.

    Raises:
        ConfigError: with the argument, its value and the range.
    """
    if forge is None:
        return
    try:
        check_arguments("attack", forge, num_files)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_attack_shares(forge: Forge | None, sets: Sequence[Liars]) -> None:
    """Refuse a mixed attack that leaves a liar without an attack, or an attack without a liar.

    Raises:
        ConfigError: with the liars.
    """
    if forge is None:
        return
    try:
        for liars in filter(None, sets):
            shares(forge, liars)
    except ValueError as error:
        raise ConfigError(f"attack.{error}") from error


def find_idle_reason(
    config: Config,
    assignment: Assignment,
    forge: Forge | None,
    sets: Sequence[Liars],
    is_poisoning: bool,
) -> str:
    """Why the attack can do nothing against any of these sets of liars, or ``""``.

    Raises:
        ConfigError: if the strength of the attack is undefined for K and q.
    """
    if forge is None:
        return "attack=none"
    num_byzantine = len(sets[0])
    if num_byzantine == 0:
        return "nobody lies"
    if not any(_count_blocked(assignment, liars) for liars in sets):
        return f"every file keeps a majority of honest replicas against these q={num_byzantine}"
    if not any(forged_files(forge, assignment, liars) != set() for liars in sets):
        return f"no file is left to lie on against these q={num_byzantine}"
    if is_poisoning:
        return ""
    try:
        return why_idle(forge, Setting(assignment.num_workers, num_byzantine, config["steps"]))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def note_idle_attack(forge: Forge | None, reason: str) -> str:
    """Note an attack that can do nothing."""
    return f"the attack does nothing: {reason}" if forge is not None and reason else ""


def note_late_attack(config: Config, forge: Forge | None, choose: TimedAdversary) -> str:
    """Note an attack whose first step comes after the run."""
    steps, timing = config["steps"], choose.timing
    if forge is None or choose.last_set(steps) or not choose.first_sets(1)[0]:
        return ""
    return (
        f"nobody lies in steps={steps}: with adversary.start={timing.start} "
        f"adversary.every={timing.every} the first step is {next(timing.steps()) + 1}"
    )


def count_left_out(assignment: Assignment, forge: Forge | None, sets: Sequence[Liars]) -> int:
    """The most files that liars leave without a majority, where a tie is possible."""
    is_even = assignment.replication % 2 == 0
    if forge is None or not is_even or forged_files(forge, assignment, ()) is not None:
        return 0
    return max(_count_blocked(assignment, liars) for liars in sets)


def check_left_out(config: Config, assignment: Assignment, left_out: int) -> None:
    """Refuse liars that can leave every file without a majority.

    Raises:
        ConfigError: with q, f and the majority.
    """
    if left_out == assignment.num_files:
        raise ConfigError(
            f"q={config['q']} workers can leave all f={left_out} files without a majority of "
            f"{assignment.majority} equal replicas"
        )


def check_trusted_row(config: Config) -> None:
    """Refuse a rule that trusts a row after bucketing, which has mixed it with others.

    Raises:
        ConfigError: with the rule.
    """
    if "bucketing" in config["pre_aggregator"] and "trusted" in config["aggregator"]:
        raise ConfigError(
            f"aggregator={config['choices']['aggregator']} trusts a row: after bucketing there "
            "are none"
        )


def check_defence(
    config: Config, defence: Defence, num_files: int, left_out: int, num_corrupt: int
) -> None:
    """Refuse a defence that is undefined for the rows it may get: it is tried on zeros.

    Raises:
        ConfigError: with what the rule says, q, num_corrupt and f.
    """
    for num_rows, lost in product({num_files, num_files - left_out}, {0, num_corrupt}):
        if lost >= num_rows:
            continue
        try:
            result = defence.for_rows(range(num_rows))(_zeros(num_rows, lost), num_corrupt)
            check_aggregate(result, 2, torch.float32)
        except NonFiniteRows:  # the trusted row is one of the lost
            continue
        except Exception as error:  # a rule of the user's own may raise anything
            is_refused = isinstance(error, ValueError | IndexError)
            said = located(error) if is_refused else f"raises {typed(error)}"
            before = f"pre_aggregator={config['choices']['pre_aggregator']} "
            ties = f" and leave {left_out} without a majority" if left_out else ""
            kind = ConfigError if is_refused else PartError
            aside = f"; {lost} rows set aside as not finite" if lost else ""
            numbers = f"q={config['q']} workers can win {num_corrupt} of f={num_files} files"
            raise kind(
                f"{before if defence.before else ''}aggregator={config['choices']['aggregator']} "
                f"{said}" + f" ({numbers}{ties}{aside})" * is_refused
            ) from error


def note_lost_majority(config: Config, num_files: int, num_corrupt: int) -> str:
    """Note liars that win half of the files, where no rule has a guarantee."""
    if 2 * num_corrupt < num_files:
        return ""
    return (
        f"q={config['q']} workers can win {num_corrupt} of f={num_files} files: no aggregator "
        "withstands half of its rows being forged"
    )


def try_attack(
    config: Config,
    assignment: Assignment,
    forge: Forge | None,
    liars: Liars,
    num_corrupt: int,
    defence: Defence,
) -> None:
    """Refuse an attack that fails on a few zeros; one without a declaration is not tried.

    Raises:
        ConfigError: with what the attack says.
    """
    if forge is None or not liars or not is_declared(forge):
        return
    try:
        check_attack(forge, assignment, liars, num_corrupt, defence)
    except ValueError as error:
        raise ConfigError(f"attack={config['choices']['attack']} {located(error)}") from error


def _count_blocked(assignment: Assignment, liars: Liars) -> int:
    """Files that liars can win or, with an even r, leave without a majority."""
    holders = assignment.incidence[list(liars)].sum(dim=0)
    return int((assignment.replication - holders < assignment.majority).sum())


def _zeros(num_rows: int, lost: int) -> Tensor:
    """Zeros; the last rows are not finite, as many as a rule may have to set aside."""
    rows = torch.zeros(num_rows, 2)
    rows[num_rows - lost :] = torch.nan
    return rows


def check_aggregate(result: Any, size: int, dtype: torch.dtype) -> None:
    """Check what a rule returns.

    Raises:
        ValueError: unless it is a tensor ``[size]`` of the type of the rows.
    """
    if not isinstance(result, Tensor) or result.shape != (size,) or result.dtype != dtype:
        raise ValueError(f"must return a tensor [d={size}] of {dtype}, got {_described(result)}")


def check_liars(workers: Any, most: int, num_workers: int) -> tuple[int, ...]:
    """Return the workers that an adversary chose, ascending.

    Raises:
        ValueError: unless they are at most ``most`` different numbers below ``num_workers``.
    """
    is_list = isinstance(workers, tuple | list | set | frozenset)
    is_valid = is_list and all(
        isinstance(one, Integral) and 0 <= int(one) < num_workers for one in workers
    )
    if not is_valid or not len(set(workers)) == len(workers) <= most:
        raise ValueError(
            f"must return a tuple of at most q={most} different workers from 0 to "
            f"{num_workers - 1}, got {workers!r}"
        )
    return tuple(sorted(map(int, workers)))


def check_optimizer(choice: Mapping[str, Any], made: Any) -> None:
    """Check what an optimizer function returns.

    Raises:
        ConfigError: unless it is an optimizer and a schedule of torch.
    """
    kinds = (Optimizer, LRScheduler)
    is_pair = isinstance(made, tuple) and len(made) == len(kinds)
    if not is_pair or not all(map(isinstance, made, kinds)):
        raise ConfigError(
            f"optimizer._target_={choice['_target_']!r} must return (optimizer, scheduler) of "
            f"torch.optim, got {_described(made)}"
        )


def check_labels(labels: Any, num_files: int, replication: int) -> None:
    """Check what a vote returns.

    Raises:
        ValueError: unless it is an int64 tensor ``[num_files, replication]``.
    """
    shape = (num_files, replication)
    if not isinstance(labels, Tensor) or labels.shape != shape or labels.dtype != torch.int64:
        raise ValueError(
            f"must return labels [f={num_files}, r={replication}] of torch.int64, got "
            f"{_described(labels)}"
        )


def _described(value: Any) -> str:
    return (
        f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
    )
