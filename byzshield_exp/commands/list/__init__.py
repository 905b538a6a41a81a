"""The command line of the list."""

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from typing import Any

from byzshield_exp.binding import did_you_mean
from byzshield_exp.commands.choices import Choice, choices, groups
from byzshield_exp.commands.list.entries import Entry, entry_of
from byzshield_exp.commands.list.layout import listed, told


def main(arguments: list[str]) -> int:
    """``list [group [choice]] [--json]``; returns the exit code, 2 for unknown names."""
    parser = argparse.ArgumentParser("byzshield list", description="The choices there are.")
    parser.add_argument("group", nargs="?", help="attack, attacks, ...; without it, all groups")
    parser.add_argument("choice", nargs="?", help="one choice, with its whole description")
    parser.add_argument("--config-dir", "-cd", help="a folder of your own choices, as for a run")
    parser.add_argument("--json", action="store_true", help="a list of objects")
    given = parser.parse_args(arguments)
    try:
        print(_answer(given.group, given.choice, given.config_dir, given.json), flush=True)
    except LookupError as error:
        print(f"byzshield_exp: {error.args[0]}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, less or head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _answer(name: str | None, choice: str | None, more: str | None, as_json: bool) -> str:
    if name is None:
        return _groups(more, as_json)
    group = _singular(name)
    entries = [entry_of(group, one) for one in _found(group, choice, more)]
    if as_json:
        return json.dumps([_plain(entry, whole=choice is not None) for entry in entries], indent=2)
    width = shutil.get_terminal_size((100, 24)).columns
    return listed(group, entries, width) if choice is None else told(entries[0], width)


def _found(group: str, name: str | None, more: str | None) -> list[Choice]:
    """All choices of a group, or the one of a name.

    Raises:
        LookupError: if there is none of that name.
    """
    found = choices(group, more)
    if name is None:
        return found
    known = [one.name for one in found]
    if name not in known:
        raise LookupError(
            f"{group}={name}: no such choice, there are {', '.join(known)}"
            f"{did_you_mean(name, known)}"
        )
    return [found[known.index(name)]]


def _singular(name: str) -> str:
    """The group that a name means.

    Raises:
        LookupError: if there is none.
    """
    plurals = {group: group for group in groups()}
    plurals |= {group + "s": group for group in groups()}
    plurals |= {"approaches": "approach", "adversaries": "adversary"}
    if name.replace("-", "_") not in plurals:
        known = f"there are {', '.join(groups())}"
        raise LookupError(f"no group '{name}', {known}{did_you_mean(name, list(plurals))}")
    return plurals[name.replace("-", "_")]


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
        lines.append(f"  {one['group']:<15}{one['choices']:>3}  {default:<12}{one['line']}")
    lines += ["", "byzshield list GROUP describes the choices, byzshield list GROUP CHOICE one."]
    return "\n".join(lines)


def _plain(entry: Entry, whole: bool) -> dict[str, Any]:
    """An entry for JSON; its whole text where one choice is asked for."""
    told = asdict(entry)
    return told if whole else {name: value for name, value in told.items() if name != "text"}
