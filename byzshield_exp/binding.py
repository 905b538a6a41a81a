"""Turn a configuration choice (`_target_` and arguments) into a checked Python call.

Every argument is bound, and its type is checked, before anything starts. So a misspelt argument, or
one of a wrong type, fails at once in a line that names it, not in a worker an hour later.
"""

import collections.abc
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from beartype.door import is_bearable

from byzshield_exp.errors import ConfigError, located, typed

T = TypeVar("T")


def bind(
    key: str, choice: Mapping[str, Any], reserved: tuple[str, ...] = (), **given: Any
) -> "partial[Any]":
    """Import the function that a choice names, and bind and check the choice's arguments.

    Args:
        key: the group, for messages: ``"aggregator"``.
        choice: ``_target_`` (dotted path of a function) and its arguments by name.
        reserved: arguments that the caller of the result passes; they cannot be configured, nor
            can those of an argument that is a function, which is a choice of its own, or functions
            by name.
        given: arguments that follow from other parts; bound if the function takes them.

    Raises:
        ConfigError: if the target cannot be imported, or an argument is unknown, missing or of a
            wrong type.
    """
    function = imported(key, choice)
    parameters = inspect.signature(function).parameters
    options = [name for name in parameters if name not in reserved and name not in given]
    hints = _hints(key, function)
    arguments = {name: value for name, value in choice.items() if name != "_target_"}
    for name in arguments:
        if name not in options:
            raise ConfigError(_unknown(key, name, arguments, function, options))
    for name, value in arguments.items():
        path = f"{key}.{name}"
        if get_origin(hints.get(name)) is collections.abc.Callable:
            arguments[name] = _bound_function(path, value, reserved)
        elif _is_of_functions(hints.get(name)) and isinstance(value, Mapping):
            arguments[name] = {
                key: _bound_function(f"{path}.{key}", one, reserved) for key, one in value.items()
            }
        else:
            arguments[name] = _checked_argument(path, value, name, hints)
    for name in options:
        if parameters[name].default is inspect.Parameter.empty and name not in arguments:
            raise ConfigError(f"{key}.{name} is not given: {_name(function)} needs it")
    runtime = {name: value for name, value in given.items() if name in parameters}
    return partial(function, **runtime, **arguments)


def _hints(key: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        is_class = isinstance(function, type)
        return get_type_hints(function.__init__ if is_class else function)
    except Exception as error:  # a name that is imported for type checkers alone
        raise ConfigError(
            f"{key}: the annotations of {_name(function)} cannot be read: {typed(error)}"
        ) from error


def construct(key: str, choice: Mapping[str, Any], **given: Any) -> Any:
    """Bind a choice as :func:`bind` does, and call it.

    Raises:
        ConfigError: as :func:`bind`, and for a ``ValueError`` or ``OSError`` of the call.
    """
    return checked(key, bind(key, choice, **given))


def instance_of(kind: type[T], key: str, choice: Mapping[str, Any], **given: Any) -> T:
    """Construct a choice as :func:`construct` does; it must return an instance of a class.

    Raises:
        ConfigError: as :func:`construct`, and if it returns something else.
    """
    made = construct(key, choice, **given)
    if not isinstance(made, kind):
        raise ConfigError(
            f"{key}._target_={choice['_target_']!r} must return {kind.__name__}, got "
            f"{type(made).__name__}"
        )
    return made


def checked(key: str, call: "partial[Any]", **arguments: Any) -> Any:
    """Call a bound function.

    Raises:
        ConfigError: for a ``ValueError`` or ``OSError`` of the call; it names the choice.
    """
    try:
        return call(**arguments)
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        name = _name(call.func)
        prefix = key if str(error).startswith(name) else f"{key}={name}"
        raise ConfigError(f"{prefix}: {located(error)}") from error


def imported(key: str, choice: Mapping[str, Any]) -> Callable[..., Any]:
    """Import what a choice names.

    Raises:
        ConfigError: if that is impossible, or it cannot be called.
    """
    target = choice.get("_target_")
    module, _, name = str(target).rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module of the user's own may raise anything
        known = isinstance(error, ImportError | AttributeError | ValueError)
        said = located(error) if known else typed(error)
        raise ConfigError(f"{key}._target_={target!r} cannot be imported: {said}") from error
    if not callable(function):
        raise ConfigError(f"{key}._target_={target!r} is not a function")
    return function  # type: ignore[no-any-return]


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ``"; did you mean 'alie'?"``, or ``""`` when no known name is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _is_of_functions(hint: Any) -> bool:
    """Whether a type is a mapping of names to functions."""
    is_mapping = get_origin(hint) is collections.abc.Mapping
    return is_mapping and get_origin(get_args(hint)[1]) is collections.abc.Callable


def _bound_function(key: str, value: Any, reserved: tuple[str, ...]) -> "partial[Any]":
    """Bind an argument that is a function: a choice inside the choice."""
    if not isinstance(value, Mapping) or "_target_" not in value:
        group = key.partition(".")[0]
        raise ConfigError(f"{key}={value!r}: choose it with {group}@{key}=NAME")
    return bind(key, value, reserved)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", str(function))


def _unknown(
    key: str, name: str, given: Mapping[str, Any], function: Callable[..., Any], options: list[str]
) -> str:
    """Say that a function has no such argument; the choice that it was put into may have it."""
    known = f"known are {', '.join(options)}" if options else "it takes none"
    said = f"{key}.{name}={given[name]!r}: unknown argument"
    near = did_you_mean(name, options)
    if str(function.__module__).partition(".")[0] == "byzshield_exp":
        return f"{said}, {known}{near}"
    of = f"of {function.__module__}.{_name(function)}"
    return f"{said} {of}, {known}{near}; ~{key}.{name} leaves out what the choice has"


def _checked_argument(key: str, value: Any, name: str, hints: Mapping[str, Any]) -> Any:
    """Check a value's type; an int becomes a float where a float is expected (YAML's ``1``)."""
    hint = hints.get(name, Any)
    is_wrong_bool = isinstance(value, bool) and bool not in (hint, *getattr(hint, "__args__", ()))
    if hint is Any or (is_bearable(value, hint) and not is_wrong_bool):
        return value
    if type(value) is int and is_bearable(float(value), hint):
        return float(value)
    if isinstance(value, list) and is_bearable(tuple(value), hint):
        return tuple(value)  # YAML has none
    raise ConfigError(f"{key}={value!r} must be {_spell(hint)}")


def _spell(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_spell(part).removeprefix("one of ") for part in get_args(hint))
    if hint is NoneType:
        return "null"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
