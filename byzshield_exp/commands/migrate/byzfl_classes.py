"""Translate ByzFL's aggregators, pre-aggregators and attacks with their parameters."""

from collections.abc import Sequence
from typing import Any

from byzshield_exp.commands import choices
from byzshield_exp.commands.arguments import near
from byzshield_exp.commands.migrate.mapping import ForeignSetting, setting_group, spelled, table
from byzshield_exp.commands.migrate.translating import GivenSettings, Replacement
from byzshield_exp.errors import ConfigError


def variants(name: str, settings: GivenSettings) -> Replacement:
    """Translate classes with parameters; those without any share one comma list.

    Raises:
        ConfigError: if there is none, or one that is not known.
    """
    setting, bare, branches, notes = table("byzfl").settings[name], [], [], []
    for one in listed(settings[name]):
        choice, overrides, note = _class(setting, one)
        notes += [note] if note else []
        if overrides:
            branches.append([f"{name}={choice}", *overrides])
        else:
            bare.append(choice)
    if not bare and not branches:
        raise ConfigError(f"{name}=[] must have a value")
    if bare:
        branches.insert(0, [f"{name}={','.join(bare)}"])
    return Replacement(branches, "; ".join(dict.fromkeys(notes)))


def chains(settings: GivenSettings) -> Replacement:
    """A list of pre-aggregators is a chain; a list of lists sweeps chains."""
    setting, value = table("byzfl").settings["pre_aggregators"], settings["pre_aggregators"]
    value = listed(value)
    chains = value if value and isinstance(value[0], list) else [value]
    branches, notes = [], []
    for chain in chains:
        found = [_class(setting, one) for one in listed(chain)]
        names = [choice for choice, _, _ in found]
        head = names[0] if len(names) == 1 else f"[{','.join(names)}]"
        own = [override for _, overrides, _ in found for override in overrides]
        branches.append([f"pre_aggregator={head}", *own] if names else ["pre_aggregator=none"])
        notes += [note for _, _, note in found if note]
    is_default = branches == [["pre_aggregator=none"]]
    return Replacement([[]] if is_default else branches, "; ".join(dict.fromkeys(notes)))


def _class(setting: ForeignSetting, one: Any) -> tuple[str, list[str], str]:
    """Find the choice for a class, its overrides and what differs.

    Raises:
        ConfigError: for an unknown class or parameter.
    """
    name = name_of(one, setting.name)
    if name not in setting.classes:
        known = ", ".join(setting.classes)
        raise ConfigError(
            f"{setting.name}.name={name}: there are {known}{near(name, setting.classes)}"
        )
    found = setting.classes[name]
    given, known = one.get("parameters") or {}, found.get("parameters", {})
    if not isinstance(given, dict):
        raise ConfigError(f"{setting.name}.{name}.parameters={given} must be an object")
    choice, *overrides = found["choice"].split()
    notes = [f"{name}: {found['note']}"] if "note" in found else []
    for key in given:
        if key not in (*known, "f"):  # f is overwritten there, computed here
            there = f"{setting.name}.{name} has no parameter {key}"
            raise ConfigError(f"{there}, there are {', '.join(known) or 'none'}{near(key, known)}")
    for key, target in known.items():
        if isinstance(target, str):
            notes += [f"{name}.{key}: {target}"] if key in given else []
            continue
        ours, default = target
        values = ",".join(map(spelled, listed(given.get(key, default))))
        if key in given or not _is_preset(setting, choice, ours, default):
            overrides.append(f"{ours}={values}")
    return choice, [] if _are_presets(setting, choice, overrides) else overrides, "; ".join(notes)


def _are_presets(setting: ForeignSetting, choice: str, overrides: Sequence[str]) -> bool:
    pairs = [one.partition("=")[::2] for one in overrides]
    return all(_is_preset(setting, choice, key, value) for key, value in pairs)


def _is_preset(setting: ForeignSetting, choice: str, key: str, value: Any) -> bool:
    """Whether a choice has this value anyway."""
    found = choices.choice(setting_group(setting), choice)
    own = {one.name: one.value for one in found.keys} if found else {}
    try:
        return key in own and float(own[key]) == float(value)
    except ValueError:
        return False


def name_of(one: Any, where: str) -> str:
    """Return the name in an object of the file.

    Raises:
        ConfigError: if it has none.
    """
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        raise ConfigError(f"{where}: {one} must be an object with a name")
    return str(one["name"])


def listed(value: Any) -> list[Any]:
    """Return a list as it is, and one value as a list."""
    return value if isinstance(value, list) else [value]
