"""Read the choices from their YAML files without Hydra, so that listing them is quick."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from byzshield_exp.errors import ConfigError

# The allowed values of keys that are not groups.
VALUES: dict[str, tuple[str | bool, ...]] = {
    "batch_rounding": ("error", "down"),
    "device": ("cpu", "cuda"),
    "precision": ("float32", "tf32", "bf16"),
    "on_nonfinite": ("finish", "stop", "skip_step"),
    "on_invalid": ("error", "skip"),
    "profile": (False, True, "metrics"),
    "histograms": (False, True),
    "cluster.backend": ("auto", "gloo", "nccl", "sockets"),
    "cluster.server_plays": ("auto", True, False),
    "cluster.majority_of": ("all", "present"),
}


@dataclass(frozen=True)
class Key:
    """A key of a choice.

    Attributes:
        name: the key as typed, ``aggregator.neighbours``.
        value: its value as written in the file.
        comment: the comment beside it.
    """

    name: str
    value: str
    comment: str = ""


@dataclass(frozen=True)
class Choice:
    """One answer to the question that a group asks.

    Attributes:
        name: the choice as typed.
        comment: the lines above its keys.
        package: the key that holds its keys; ``_global_`` for choices of choices.
        target: dotted path of the function; None if the choice has none.
        keys: the keys of the function, or the values that the choice sets.
        implied: other choices that it makes, ``aggregator=mean``.
    """

    name: str
    comment: str
    package: str
    target: str | None
    keys: tuple[Key, ...]
    implied: tuple[str, ...]


def conf_dir() -> str:
    """Find the folder of YAML files: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return str(inside if (inside / "config.yaml").is_file() else package.parent / "conf")


def groups() -> dict[str, Key]:
    """Read the groups in the order of ``config.yaml``, each with its default and its question."""
    text = Path(conf_dir(), "config.yaml").read_text(encoding="utf-8")
    defaults = _entries(yaml.compose(text))["defaults"]
    entries = [_entries(item) for item in defaults.value if isinstance(item, MappingNode)]
    named = {
        name: Key(name, _written(text, value), _beside(text, value))
        for entry in entries
        for name, value in entry.items()
    }
    folders = {path.name for path in Path(conf_dir()).iterdir() if path.is_dir()}
    rest = {name: Key(name, "null", "chosen by experiments") for name in folders - named.keys()}
    return {name: key for name, key in named.items() if name in folders} | rest


def values() -> Iterator[Key]:
    """Read the keys of ``config.yaml`` that are not groups."""
    text = Path(conf_dir(), "config.yaml").read_text(encoding="utf-8")
    entries = _entries(yaml.compose(text))
    own = {name: node for name, node in entries.items() if name not in ("defaults", "hydra")}
    return _keys(text, "", own)


def choices(group: str, more: str | None = None) -> list[Choice]:
    """Read the choices of a group, by name, with those in the user's own folder, if any."""
    return [_read(group, name, path) for name, path in sorted(paths(group, more).items())]


def choice(group: str, name: str, more: str | None = None) -> Choice | None:
    """Read one choice of a group; None if there is none of that name."""
    path = paths(group, more).get(name)
    return None if path is None else _read(group, name, path)


def paths(group: str, more: str | None = None) -> dict[str, Path]:
    """Find the file of every choice of a group."""
    folders = [conf_dir()] if more is None else [more, conf_dir()]
    return {
        path.relative_to(one).with_suffix("").as_posix(): path
        for one in (Path(folder, group) for folder in folders)
        for path in one.rglob("*.yaml")
    }


@cache
def refuse_shadowing(folder: str) -> None:
    """Refuse a folder with a file of the name of one of ours: Hydra would ignore it.

    Raises:
        ConfigError: if it has one; it names both files.
    """
    for path in sorted(Path(folder).rglob("*.yaml")):
        ours = Path(conf_dir(), path.relative_to(folder))
        if ours.is_file() and not ours.samefile(path):
            raise ConfigError(f"{path} would be ignored, as {ours} has its name: rename it")


def _read(group: str, name: str, path: Path) -> Choice:
    text = path.read_text(encoding="utf-8")
    head = [line[1:] for line in takewhile(lambda line: line[:1] == "#", text.splitlines())]
    packages = [line.split()[1] for line in head if line.startswith(" @package")]
    package = packages[0] if packages else group
    entries = _entries(yaml.compose(text))
    defaults, sweep = entries.pop("defaults", None), entries.pop("hydra", None)
    keys, implied = _defaults(text, package, defaults)
    if package == "_global_":
        package, own = (group if group in entries else package), entries.pop(group, None)
        keys += _keys(text, "", entries)
        entries = _entries(own)
    target = entries.pop("_target_", None)
    keys += _keys(text, f"{package}.", entries)
    curves = _entries(_entries(_entries(sweep).get("sweeper")).get("curves"))
    if curves:
        head.append(f" Curves (hydra.sweeper.only=[...]): {', '.join(curves)}.")
    return Choice(
        name=name,
        comment="\n".join(line[1:] for line in head if not line.startswith(" @package")),
        package=package,
        target=None if target is None else str(target.value),
        keys=tuple(keys),
        implied=tuple(implied),
    )


def _defaults(text: str, package: str, node: Node | None) -> tuple[list[Key], list[str]]:
    """Return the choices inside a choice, and the other choices that it makes."""
    keys, implied = [], []
    for item in node.value if isinstance(node, SequenceNode) else []:
        for name, value in _entries(item).items():
            written = _written(text, value)
            if "@" not in name:
                implied.append(f"{name.removeprefix('override ').strip('/')}={written}")
            else:
                group, _, place = name.strip("/").partition("@")
                keys.append(Key(f"{group}@{package}.{place or group}", written))
    return keys, implied


def _keys(text: str, prefix: str, entries: dict[str, Any]) -> Iterator[Key]:
    for name, node in entries.items():
        if isinstance(node, MappingNode) and node.value:
            yield from _keys(text, f"{prefix}{name}.", _entries(node))
        else:
            yield Key(prefix + name, _written(text, node), _beside(text, node))


def _entries(node: Node | None) -> dict[str, Any]:
    return {key.value: value for key, value in node.value} if isinstance(node, MappingNode) else {}


def _written(text: str, node: Node) -> str:
    return text[node.start_mark.index : node.end_mark.index].strip()


def _beside(text: str, node: Node) -> str:
    """Return the comment on the line where a value ends, with the comments right below it."""
    first, *rest = text[node.end_mark.index :].splitlines() or [""]
    column = node.end_mark.column + first.find("#")
    below = takewhile(lambda line: line.find("#") == column and not line[:column].strip(), rest)
    return " ".join(line.partition("#")[2].strip() for line in (first, *below))
