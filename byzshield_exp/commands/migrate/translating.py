"""Translate settings of another program into command lines of ours."""

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain, product
from typing import Any, NamedTuple

import yaml

from byzshield_exp.commands import choices
from byzshield_exp.commands.migrate.mapping import ForeignSetting, Table, spelled
from byzshield_exp.errors import ConfigError


class Replacement(NamedTuple):
    """What a setting becomes.

    Attributes:
        branches: overrides; each branch needs a command of its own.
        remark: what differs in this case; it replaces the table's note.
    """

    branches: Sequence[Sequence[str]] = ((),)
    remark: str = ""


class Explanation(NamedTuple):
    """A line of what is printed: their setting, our overrides, what differs."""

    theirs: str
    ours: str
    remark: str


class GivenSettings:
    """The settings that were given, with the defaults of the others.

    Attributes:
        given: by name, as read.
        extra: overrides of ours from the command line, by key.
    """

    def __init__(self, known: Table, given: Mapping[str, Any], extra: Mapping[str, str]) -> None:
        self._known = known
        self.given = given
        self.extra = extra

    def __getitem__(self, name: str) -> Any:
        return self.given.get(name, self._known.settings[name].default)


Rule = Callable[[GivenSettings], Replacement]


def translate(
    known: Table, settings: GivenSettings, rules: Mapping[str, Rule]
) -> tuple[list[str], list[Explanation]]:
    """Translate settings.

    Args:
        known: the program's table.
        settings: what was given.
        rules: by name, the code of settings that the table calls ``computed``.

    Returns:
        Commands for a shell, and the lines that explain them.

    Raises:
        ConfigError: for a value without which there is no command.
    """
    parts, lines = [], []
    for setting in known.settings.values():
        _check_bound(setting, settings[setting.name])
    for name, setting in known.settings.items():
        is_given, value = name in settings.given, settings[name]
        if setting.none:
            part = Replacement(remark=setting.none if is_given else "")
        elif name in rules:
            part = rules[name](settings)
        else:
            part = plain(setting, value, settings)
        branches = [_needed(branch, is_given, settings.extra) for branch in part.branches]
        parts.append(branches)
        if is_given or any(branches) or part.remark:
            lines.append(_line(setting, value, is_given, branches, part.remark))
    extra = [f"{key}={value}" for key, value in settings.extra.items()]
    commands = [_command([*chain(*one), *extra]) for one in product(*parts)]
    return list(dict.fromkeys(commands)), lines


def _check_bound(setting: ForeignSetting, value: Any) -> None:
    for one in value if isinstance(value, list) else [value]:
        if setting.least is not None and one is not None and not setting.least <= one < math.inf:
            raise ConfigError(f"{setting.name}={one} must be at least {setting.least}, and finite")


def plain(setting: ForeignSetting, value: Any, settings: GivenSettings) -> Replacement:
    """Translate a setting whose table says all; a list of values is a sweep.

    Raises:
        ConfigError: for a value that is unknown or has no equivalent.
    """
    if value is None:
        return Replacement()
    several = value if isinstance(value, list) else [value]
    if setting.values:
        branches = [_chosen(setting, str(one), settings) for one in several]
        return Replacement(
            branches, "; ".join(filter(None, map(setting.notes.get, map(str, several))))
        )
    joined = ",".join(map(spelled, several))
    return Replacement([[override.format(joined) for override in setting.ours.split()]])


def _chosen(setting: ForeignSetting, value: str, settings: GivenSettings) -> list[str]:
    if value not in setting.values:
        known = ", ".join(setting.values)
        raise ConfigError(f"{setting.name}={value} must be one of {known}")
    ours = setting.values[value]
    if ours is None:
        if setting.instead in settings.extra:
            return []
        raise ConfigError(f"{setting.name}={value} has no equivalent: {setting.why}")
    return ours.split()


def _needed(branch: Iterable[str], is_given: bool, extra: Mapping[str, str]) -> list[str]:
    """Leave out what the command line replaces, and defaults of theirs that are ours too."""
    kept = [one for one in branch if not _is_replaced(one.lstrip("+").partition("=")[0], extra)]
    return [one for one in kept if is_given or not _is_default(one)]


def _is_replaced(key: str, extra: Mapping[str, str]) -> bool:
    """Whether the command line has the key, or another choice for its group."""
    return key in extra or key.partition(".")[0] in extra


def _is_default(override: str) -> bool:
    key, _, value = override.partition("=")
    ours = _our_defaults()
    return key in ours and yaml.safe_load(value) == yaml.safe_load(ours[key])


@cache
def _our_defaults() -> dict[str, str]:
    sgd = choices.choice("optimizer", "sgd")
    keys = [*choices.values(), *(sgd.keys if sgd else ())]
    return {key.name: key.value for key in keys}


def _line(
    setting: ForeignSetting,
    value: Any,
    is_given: bool,
    branches: Sequence[Sequence[str]],
    remark: str,
) -> Explanation:
    text = _theirs(setting, value)
    remarks = [remark or setting.note]
    if not is_given:
        text = f"{setting.name} ({text})" if text else setting.name
        known = _our_defaults()
        keys = [one.partition("=")[0] for one in branches[0]]
        ours = [f"{key}={known[key]}" for key in keys if key in known]
        if ours and setting.default is not None:
            remarks.insert(0, f"their default; ours is {' '.join(ours)}")
    elif text:
        text = f"{setting.name} {text}"
    else:
        text = setting.name
    said = " | ".join(" ".join(branch) for branch in branches if branch)
    return Explanation(text, said or "-", "; ".join(filter(None, remarks)))


def _theirs(setting: ForeignSetting, value: Any) -> str:
    if value is None or setting.kind == "flag":
        return ""
    if isinstance(value, list):
        return ", ".join(_theirs(setting, one) for one in value) or "none"
    return spelled(value)


def _command(overrides: Sequence[str]) -> str:
    is_sweep = any(_is_list(override.partition("=")[2]) for override in overrides)
    return shlex.join(["byzshield", "run", *(["-m"] if is_sweep else []), *overrides])


def _is_list(value: str) -> bool:
    return "," in value and value[0] not in "[{"
