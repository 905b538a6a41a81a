"""Read the tables that say which key of ours stands for each setting of another program."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from byzshield_exp.commands.arguments import near
from byzshield_exp.errors import ConfigError

TABLES = ("byzshield", "byzfl", "btard")


@dataclass(frozen=True)
class ForeignSetting:
    """A setting of another program. The heads of the YAML files say what the fields hold.

    Attributes:
        name: as it is written there.
        kind: int, float, bool, flag, text, choice, workers, or whole: a part of a JSON file.
        default: there; None: it has none.
        least: bound of a number, for what we compute with it.
        instead: our group that has to be chosen on the command line where a value has no
            equivalent.
    """

    name: str
    kind: str
    default: Any = None
    least: int | None = None
    ours: str = ""
    values: Mapping[str, str | None] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    computed: str = ""
    none: str = ""
    why: str = ""
    instead: str = ""
    note: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The settings of another program, by name, in the order of our command line."""

    name: str
    sources: tuple[str, ...]
    settings: Mapping[str, ForeignSetting]


@cache
def table(name: str) -> Table:
    """Read one of :data:`TABLES`."""
    text = Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    settings = {key: ForeignSetting(key, **fields) for key, fields in content["entries"].items()}
    return Table(content["name"], tuple(content["sources"]), settings)


def find(name: str, known: Table) -> ForeignSetting:
    """Find a setting by its name.

    Raises:
        ConfigError: if there is none; it says which is near.
    """
    if name not in known.settings:
        raise ConfigError(f"{name}: {known.name} has no such setting{near(name, known.settings)}")
    return known.settings[name]


def read(setting: ForeignSetting, text: str) -> Any:
    """Read a value from a command line.

    Raises:
        ConfigError: if it is not of the setting's kind.
    """
    try:
        if setting.kind == "int":
            return int(text.replace("_", ""))
        if setting.kind == "float":
            return float(text)
        if setting.kind == "bool":
            return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError) as error:
        kinds = {"int": "a whole number", "float": "a number", "bool": "True or False"}
        raise ConfigError(f"{setting.name}={text} must be {kinds[setting.kind]}") from error
    return text


def markdown(known: Table) -> str:
    """Lay a table out as Markdown."""
    lines = ["| theirs | default | ours | remark |", "|---|---|---|---|"]
    for one in known.settings.values():
        default = "" if one.default is None else f"`{spelled(one.default)}`"
        ours = "" if one.none else _ours(one)
        lines.append(f"| `{one.name}` | {default} | {ours} | {one.none or one.note} |")
        lines += [f"| | | {cell}" for cell in _by_value(one)]
    return "\n".join(lines)


def _ours(setting: ForeignSetting) -> str:
    if setting.ours:
        return f"`{setting.ours}`"
    return setting.computed or ("by value:" if setting.values or setting.classes else "")


def _by_value(setting: ForeignSetting) -> list[str]:
    """Lay out what stands for each value or class: the two last cells of a line."""
    cells = []
    for value, ours in setting.values.items():
        text = "none" if ours is None else f"`{ours}`" if ours else "nothing to set"
        remark = setting.why if ours is None else setting.notes.get(value, "")
        cells.append(f"{value}: {text} | {remark} |")
    for name, one in setting.classes.items():
        keys = [
            f"{key}: `{to[0]}={{}}`" if isinstance(to, list) else f"{key}: none"
            for key, to in one.get("parameters", {}).items()
        ]
        text = f"{name}: `{setting_group(setting)}={one['choice']}`"
        cells.append(f"{'; '.join([text, *keys])} | {one.get('note', '')} |")
    return cells


def setting_group(setting: ForeignSetting) -> str:
    """Name our group that a setting with classes chooses from."""
    return setting.name.removesuffix("s")


def spelled(value: Any) -> str:
    """Spell a value of JSON, YAML or Python the way Hydra reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return str(value.get("name", value))
    return str(value)
