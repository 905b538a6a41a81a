"""Describe a choice from its YAML file and its function's docstring."""

import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from byzshield_exp.commands.choices import Choice, Key
from byzshield_exp.commands.list import docstrings

# Arguments with a default that a run always passes.
_PASSED = frozenset({"num_corrupt", "generator", "previous", "shape", "num_classes"})


@dataclass(frozen=True)
class Entry:
    """The description of one choice; fields that do not apply are empty.

    Attributes:
        line: what the choice is, in a sentence.
        function: dotted path of the function that it calls.
        summary: first sentence of the function's docstring.
        parameters: keys; those that are not in the file begin with a plus, as they are typed.
    """

    group: str
    name: str
    line: str
    function: str
    summary: str
    parameters: tuple[Key, ...]
    implies: tuple[str, ...]
    precondition: str
    kind: str
    properties: tuple[str, ...]
    formula: str
    knows: str
    source: str
    text: str


def entry_of(group: str, choice: Choice) -> Entry:
    """Describe a choice; this imports its function."""
    function, problem = _function(choice.target)
    summary = docstrings.summary(function) if function else problem
    line = docstrings.first_sentence(choice.comment) or summary
    traits = getattr(function, "rule_traits", None)  # rule.py would read it, but imports torch
    return Entry(
        group=group,
        name=choice.name,
        line=line,
        function=choice.target or "",
        summary=summary,
        parameters=tuple(_parameters(choice, function)),
        implies=choice.implied,
        precondition=docstrings.precondition(function) if function else "",
        kind=getattr(traits, "kind", ""),
        properties=getattr(traits, "properties", ()),
        formula=docstrings.formula(function) if function else "",
        knows=docstrings.knows(function) if function else "",
        source=docstrings.source(function) if function else "",
        text="\n\n".join(
            part for part in (choice.comment, inspect.getdoc(function) if function else "") if part
        ),
    )


def _function(target: str | None) -> tuple[Callable[..., Any] | None, str]:
    """Import a function; return it, or the reason why there is none."""
    if target in (None, "???"):  # none, or one that the command line gives
        return None, ""
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name), ""
    except (ImportError, AttributeError, ValueError) as error:
        return None, f"{target} cannot be imported: {error}"


def _parameters(choice: Choice, function: Callable[..., Any] | None) -> Iterator[Key]:
    """List the keys in the file, then the function's other options with their defaults."""
    said = docstrings.arguments(function) if function else {}
    names = {key.name.rpartition(".")[2] for key in choice.keys}
    for key in choice.keys:
        yield Key(key.name, key.value, key.comment or said.get(key.name.rpartition(".")[2], ""))
    for name, parameter in (inspect.signature(function).parameters if function else {}).items():
        if parameter.default is not parameter.empty and name not in _PASSED | names:
            value = json.dumps(parameter.default, default=str).strip('"')
            yield Key(f"+{choice.package}.{name}", value, said.get(name, ""))
