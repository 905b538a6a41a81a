"""Digest the code and the files of the user's own that a run is made of.

A run's part (``_target_``) that is not of this package is a function of the user's. Covered are the
module that the target names, the one where the function is defined, and all modules that these
import, at any depth, as their text says (``import``, ``from ... import``, also within functions),
with the packages around them; and files that other settings name. Not covered: the standard library
and what is imported from installed packages (``site-packages``), modules imported by a computed
name, files that code opens by a name of its own. A data set's files have a digest of their own.
"""

import ast
import importlib
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from byzshield_exp.files import expand_user
from byzshield_exp.results.recorder import flatten

_OURS = ("byzshield_exp", "hydra_plugins", "torch", "torchvision")
_INSTALLED = ("site-packages", "dist-packages")
_CHUNK = 2**20  # bytes


def own_sources(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file by its name: ``my_rules.py``, or the key that names it.

    Args:
        config: plain and resolved; its parts have been imported.
    """
    settings = flatten({**config, "choices": {}})
    targets = [str(value) for key, value in settings.items() if key.endswith("_target_")]
    own = [target for target in targets if target.partition(".")[0] not in _OURS]
    return _modules(own) | {key: _digest(path) for key, path in _files(settings)}


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name the files that differ; empty if none do."""
    names = dict.fromkeys([*now, *before])
    return ", ".join(name for name in names if before.get(name) != now.get(name))


def _files(settings: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield the settings that name a file; those of the data set and of places do not count."""
    for key, value in settings.items():
        if key.partition(".")[0] in ("dataset", "output_dir") or not isinstance(value, str):
            continue
        with suppress(OSError, ValueError):
            if ("/" in value or "." in value) and (path := expand_user(value)).is_file():
                yield key, path


def _digest(path: Path) -> str:
    found = sha256()
    with path.open("rb") as file:
        while content := file.read(_CHUNK):
            found.update(content)
    return found.hexdigest()


def _modules(targets: list[str]) -> dict[str, str]:
    roots = {target.rpartition(".")[0] for target in targets} | {*map(_defined_in, targets)}
    todo, seen, found = sorted(roots), set[str](), dict[str, str]()
    while todo:
        name = todo.pop()
        if name in seen or not name or name.partition(".")[0] in _OURS:
            continue
        seen.add(name)
        todo.append(name.rpartition(".")[0])
        spec = _spec(name)
        content = None if spec is None else _content(spec, name in roots)
        if spec is None or content is None:
            continue
        found[_label(spec)] = sha256(content).hexdigest()
        with suppress(SyntaxError, ValueError):  # compiled
            todo += _imports(spec, ast.parse(content))
    return dict(sorted(found.items()))


def _defined_in(target: str) -> str:
    """Return the module in which a target is defined: its name may be an import."""
    module, _, name = target.rpartition(".")
    try:
        return str(getattr(importlib.import_module(module), name).__module__)
    except (ImportError, AttributeError, ValueError):
        return ""


def _spec(name: str) -> ModuleSpec | None:
    """Find a module without executing anything."""
    package = name.rpartition(".")[0]
    try:
        if not package:
            return find_spec(name)
        parent = _spec(package)
        places = parent.submodule_search_locations if parent else None
        return PathFinder.find_spec(name, places) if places else None
    except (ImportError, ValueError, AttributeError):
        return None


def _content(spec: ModuleSpec, is_root: bool) -> bytes | None:
    """Read a module's file; None if it is installed, unless a target names it."""
    origin = Path(spec.origin or "")
    library = Path(sysconfig.get_path("stdlib")).resolve()
    is_installed = any(part in _INSTALLED for part in origin.parts)
    if origin.suffix == "" or (is_installed and not is_root):
        return None
    if not is_installed and library in origin.resolve().parents:
        return None
    with suppress(OSError, AttributeError):
        return bytes(spec.loader.get_data(spec.origin))  # type: ignore[union-attr]  # also of a zip
    return None


def _label(spec: ModuleSpec) -> str:
    """Name a module's file from the top of its package on."""
    package = spec.name if spec.submodule_search_locations else spec.name.rpartition(".")[0]
    return "/".join([*filter(None, package.split(".")), Path(spec.origin or "").name])


def _imports(spec: ModuleSpec, tree: ast.AST) -> Iterator[str]:
    package = spec.name if spec.submodule_search_locations else spec.name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):
                base = resolve_name("." * node.level + (node.module or ""), package or None)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
