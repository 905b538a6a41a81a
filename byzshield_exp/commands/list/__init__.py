"""``byzshield list``: the choices there are, what each is, needs and takes.

byzshield list                         all groups
byzshield list aggregators             all choices of a group; attack, attacks, ...
byzshield list attacks alie            one choice, with its whole description

--json              a list of objects
--config-dir, -cd   a folder of your own choices, as for a run
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from byzshield_exp.commands.arguments import (
    asks_for_help,
    near,
    refuse_options,
    take_flag,
    take_option,
)
from byzshield_exp.commands.choices import Choice, choices, groups, paths, refuse_shadowing
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.commands.list.entries import Entry, entry_of
from byzshield_exp.commands.list.layout import entry_text, group_text
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import say

_OPTIONS = ("--json", "--config-dir", "-cd")


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    if not before:
        return [*groups(), *_OPTIONS]
    group = _plurals().get(before[0])
    return [*(sorted(paths(group)) if group and len(before) == 1 else ()), *_OPTIONS]


@exit_codes()
def main(arguments: list[str]) -> None:
    """Print groups, choices or one choice.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    if asks_for_help(arguments):
        say(__doc__ or "")
        return
    rest = list(arguments)
    as_json, more = take_flag(rest, "--json"), take_option(rest, "--config-dir", "-cd")
    refuse_options(rest, *_OPTIONS)
    if len(rest) > 2:
        raise ConfigError(f"{rest[2]}: list takes a group and a choice")
    if more:
        refuse_shadowing(more)
    group, choice = [*rest, None, None][:2]
    print(_answer(group, choice, more, as_json))


def _answer(name: str | None, choice: str | None, more: str | None, as_json: bool) -> str:
    if name is None:
        return _groups(more, as_json)
    group = _singular(name)
    entries = [entry_of(group, one) for one in _found(group, choice, more)]
    if as_json:
        return json.dumps([_plain(entry, whole=choice is not None) for entry in entries], indent=2)
    width = shutil.get_terminal_size((100, 24)).columns
    return group_text(group, entries, width) if choice is None else entry_text(entries[0], width)


def _found(group: str, name: str | None, more: str | None) -> list[Choice]:
    """Read all choices of a group, or the one with a name.

    Raises:
        ConfigError: if there is no choice of that name.
    """
    found = choices(group, more)
    if name is None:
        return found
    known = [one.name for one in found]
    if name not in known:
        raise ConfigError(
            f"{group}={name}: no such choice, there are {', '.join(known)}{near(name, known)}"
        )
    return [found[known.index(name)]]


def _singular(name: str) -> str:
    """Find the group that a name, singular or plural, means.

    Raises:
        ConfigError: if there is none.
    """
    plurals = _plurals()
    if name.replace("-", "_") not in plurals:
        known = f"there are {', '.join(groups())}"
        raise ConfigError(f"no group '{name}', {known}{near(name, plurals)}")
    return plurals[name.replace("-", "_")]


def _plurals() -> dict[str, str]:
    names = {name: group for group in groups() for name in (group, f"{group}s")}
    return names | {"approaches": "approach", "adversaries": "adversary"}


def _groups(more: str | None, as_json: bool) -> str:
    found = [
        {
            "group": name,
            "choices": len(choices(name, more)),
            "default": None if key.value == "null" else key.value,
            "line": key.comment,
        }
        for name, key in groups().items()
    ]
    if as_json:
        return json.dumps(found, indent=2)
    lines = ["Groups, how many choices each has, and its default:", ""]
    for one in found:
        default = one["default"] or "-"
        lines.append(f"  {one['group']:<15}{one['choices']:>3}  {default:<18}{one['line']}")
    lines += ["", "byzshield list GROUP describes the choices, byzshield list GROUP CHOICE one."]
    return "\n".join(lines)


def _plain(entry: Entry, whole: bool) -> dict[str, Any]:
    """Convert an entry for JSON, with its text only if ``whole``."""
    fields = asdict(entry)
    return fields if whole else {name: value for name, value in fields.items() if name != "text"}
