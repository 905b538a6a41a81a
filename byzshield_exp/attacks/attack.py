"""What an attack declares about itself, and the questions a run asks a bound attack.

An attack without a declaration is taken to lie on all files from the first step on, and to read no
parameters of earlier steps. If an argument of an attack is an attack, or several by name, all are
asked.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from byzshield_exp.assignments import Assignment

Arguments = Mapping[str, Any]  # of a bound attack by name, defaults filled in
Liars = tuple[int, ...]
Share = tuple[Callable[..., Any], Liars]  # an attack, and the liars that make it
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
        shares: ``shares(arguments, liars)``: which liars make which of the attacks that it wraps,
            by name; raises ValueError where that is undefined. None: all make the attack itself.
        is_declared: whether a trial on zeros before the run is safe, as for all of ours.
    """

    check: Callable[[Arguments, int], None] | None = None
    recent_steps: Callable[[Arguments], int] = lambda arguments: 0
    is_initial_read: Callable[[Arguments], bool] = lambda arguments: False
    targets: Callable[[Assignment, Liars], Iterable[int]] | None = None
    why_idle: Callable[[Arguments, Setting], str] = lambda arguments, setting: ""
    shares: Callable[[Arguments, Liars], dict[str, Share]] | None = None
    is_declared: bool = True


Layer = tuple[str, AttackTraits, Arguments]  # after a path of argument names: ".attack"
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


def shares(attack: Callable[..., Any], liars: Liars) -> dict[str, Share]:
    """Which liars make which attack, by a name; all the bound attack itself, unless it is mixed.

    Args:
        attack: bound.
        liars: all of them, at least one.

    Raises:
        ValueError: unless each liar has one attack and each attack a liar.
    """
    split = _traits(attack).shares
    return {"": (attack, liars)} if split is None else split(_arguments(attack), liars)


def forged_files(
    attack: Callable[..., Any] | None, assignment: Assignment, liars: Liars
) -> set[int] | None:
    """The files on which a bound attack lies; None: all that liars hold."""
    found: set[int] = set()
    for layers in _chains(attack):
        targets = [traits.targets for _, traits, _ in layers if traits.targets is not None]
        if not targets:
            return None
        found |= set.intersection(*(set(limit(assignment, liars)) for limit in targets))
    return None if attack is None else found


def why_idle(attack: Callable[..., Any], setting: Setting) -> str:
    """Why a bound attack never changes a row in this setting, or ``""``; of several, all of them.

    Raises:
        ValueError: if its strength is undefined there.
    """
    said = [
        next(filter(None, (traits.why_idle(given, setting) for _, traits, given in layers)), "")
        for layers in _chains(attack)
    ]
    return said[0] if all(said) else ""


def _layers(attack: Callable[..., Any] | None) -> Iterator[Layer]:
    """Yield an attack and all that it wraps."""
    return chain.from_iterable(_chains(attack))


def _chains(attack: Callable[..., Any] | None, path: str = "") -> Iterator[list[Layer]]:
    """Yield each way from an attack through those that it wraps, the outermost first."""
    if attack is None:
        return
    given = _arguments(attack)
    layer = path, _traits(attack), given
    inner = {f"{path}.{name}": one for name, one in _inner(given)}
    if not inner:
        yield [layer]
    for name, one in inner.items():
        for rest in _chains(one, name):
            yield [layer, *rest]


def _inner(given: Arguments) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in given.items():
        if _is_attack(value):
            yield name, value
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{key}", one) for key, one in value.items() if _is_attack(one))


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
