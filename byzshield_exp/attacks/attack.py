"""What an attack declares about itself, and the questions a run asks a bound attack.

An attack without a declaration is taken to lie on all files from the first step on, and to read no
parameters of earlier steps. If an argument of an attack is an attack, both are asked.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from byzshield_exp.assignments import Assignment

Arguments = Mapping[str, Any]  # of a bound attack by name, defaults filled in
Liars = tuple[int, ...]
Forge = TypeVar("Forge", bound=Callable[..., Any])


@dataclass(frozen=True)
class Setting:
    """The numbers of a run that decide whether an attack has any strength.

    Attributes:
        num_workers: K.
        num_byzantine: how many workers lie.
        steps: of the run.
    """

    num_workers: int
    num_byzantine: int
    steps: int


@dataclass(frozen=True)
class AttackTraits:
    """What an attack declares.

    Attributes:
        check: ``check(arguments, num_files)`` raises ValueError for an argument out of its range.
        recent_steps: ``recent_steps(arguments)``: of how many of the last steps it reads the
            parameters.
        is_initial_read: ``is_initial_read(arguments)``: whether it reads the parameters of step 0.
        targets: ``targets(assignment, liars)``: the files on which it lies; None: on all that
            liars hold.
        why_idle: ``why_idle(arguments, setting)``: why it never changes a row, or ``""``.
        is_declared: whether a trial on zeros before the run is safe, as for all of ours.
    """

    check: Callable[[Arguments, int], None] | None = None
    recent_steps: Callable[[Arguments], int] = lambda arguments: 0
    is_initial_read: Callable[[Arguments], bool] = lambda arguments: False
    targets: Callable[[Assignment, Liars], Iterable[int]] | None = None
    why_idle: Callable[[Arguments, Setting], str] = lambda arguments, setting: ""
    is_declared: bool = True


_UNDECLARED = AttackTraits(is_declared=False)


def attack_traits(**traits: Any) -> Callable[[Forge], Forge]:
    """Declare an attack: the arguments are the attributes of :class:`AttackTraits`."""

    def declare(forge: Forge) -> Forge:
        forge.attack_traits = AttackTraits(**traits)  # type: ignore[attr-defined]
        return forge

    return declare


def is_declared(attack: Callable[..., Any]) -> bool:
    """Whether the attack and all that it wraps have a declaration."""
    return all(traits.is_declared for _, traits, _ in _layers(attack))


def recent_steps(attack: Callable[..., Any] | None) -> int:
    """Of how many of the last steps the attack reads the parameters."""
    return max((traits.recent_steps(given) for _, traits, given in _layers(attack)), default=0)


def is_initial_read(attack: Callable[..., Any] | None) -> bool:
    """Whether the attack reads the parameters of step 0 at a later step."""
    return any(traits.is_initial_read(given) for _, traits, given in _layers(attack))


def check_arguments(key: str, attack: Callable[..., Any], num_files: int) -> None:
    """Check the arguments of a bound attack and of those that it wraps.

    Args:
        key: of the attack, for messages: ``"attack"``.
        attack: bound.
        num_files: f.

    Raises:
        ValueError: in one line, with the key, the value and the bound.
    """
    for path, traits, given in _layers(attack):
        if traits.check is None:
            continue
        try:
            traits.check(given, num_files)
        except ValueError as error:
            raise ValueError(f"{key}{path}.{error}") from error


def forged_files(
    attack: Callable[..., Any] | None, assignment: Assignment, liars: Liars
) -> set[int] | None:
    """The files on which a bound attack lies; None: all that liars hold."""
    limits = [
        set(traits.targets(assignment, liars))
        for _, traits, _ in _layers(attack)
        if traits.targets is not None
    ]
    return set.intersection(*limits) if limits else None


def why_idle(attack: Callable[..., Any], setting: Setting) -> str:
    """Why a bound attack never changes a row in this setting, or ``""``.

    Raises:
        ValueError: if its strength is undefined there.
    """
    said = (traits.why_idle(given, setting) for _, traits, given in _layers(attack))
    return next(filter(None, said), "")


def _layers(attack: Callable[..., Any] | None) -> Iterator[tuple[str, AttackTraits, Arguments]]:
    """Yield an attack and those that it wraps: the path of argument names, traits, arguments."""
    path = ""
    while attack is not None:
        given = _arguments(attack)
        yield path, _traits(attack), given
        inner = ((name, value) for name, value in given.items() if _is_attack(value))
        name, attack = next(inner, ("", None))
        path = f"{path}.{name}"


def _is_attack(value: object) -> bool:
    return isinstance(value, partial) or hasattr(value, "attack_traits")


def _arguments(attack: Callable[..., Any]) -> Arguments:
    parameters = inspect.signature(attack).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _function(attack: Callable[..., Any]) -> Callable[..., Any]:
    return attack.func if isinstance(attack, partial) else attack


def _traits(attack: Callable[..., Any]) -> AttackTraits:
    traits: AttackTraits = getattr(_function(attack), "attack_traits", _UNDECLARED)
    return traits
