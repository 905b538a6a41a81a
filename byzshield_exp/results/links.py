"""Runs of a sweep that cannot differ: one is computed, the others' folders link to its files."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from byzshield_exp.results import checkpoint
from byzshield_exp.results.recorder import METRICS, SUMMARY, flatten
from byzshield_exp.results.status import STATUS

_LINKED = (SUMMARY, STATUS, METRICS, checkpoint.FOLDER)  # the first one tells that it is a link
_EVENTS = "events.out.tfevents.*"
_OURS = "byzshield_exp."
_LYING = ("attack", "adversary", "cheat", "poison_statistics")
_SERVER = "byzshield_exp.training.parameter_server.parameter_server"
_NOBODY = "byzshield_exp.attacks.adversaries.none"


def same_as(folder: Path) -> str | None:
    """Name the run whose files a folder links to; None if it has files of its own."""
    try:
        target = Path(os.readlink(folder / SUMMARY))
    except OSError:
        return None
    return target.parts[1] if target == Path("..", target.parent.name, SUMMARY) else None


def link(folder: Path, run: Path) -> None:
    """Make the links of a folder to the files of a run beside it.

    Raises:
        OSError: if the file system has no links, or the folder has a file in the place of one.
    """
    events = [path.name for path in run.glob(_EVENTS)]
    for path in folder.glob(_EVENTS):
        if path.is_symlink() and path.name not in events:
            path.unlink()
    for name in (*_LINKED, *events):
        target = Path("..", run.name, name)
        if (folder / name).is_symlink() and Path(os.readlink(folder / name)) != target:
            (folder / name).unlink()
        with suppress(FileExistsError):
            (folder / name).symlink_to(target)


def unlink(folder: Path) -> None:
    """Remove the links of a folder, so that a run can write files of its own.

    Raises:
        OSError: if one cannot be removed.
    """
    if same_as(folder):
        names = [path.name for path in folder.glob(_EVENTS)]
        for name in (*names, *reversed(_LINKED)):
            if (folder / name).is_symlink():
                (folder / name).unlink()


def essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what cannot change the run: lies where nobody lies.

    Nobody lies with ``q=0``, with ``adversary=none``, and under the parameter server with
    ``attack=none``. A part of the user's own may do anything, so with one among those nothing is
    left out.
    """
    if not _nobody_lies(config):
        return dict(config)
    choices = config["choices"]
    kept = {group: choices[group] for group in choices if group.partition("@")[0] not in _LYING}
    return {key: config[key] for key in config if key not in _LYING} | {"choices": kept}


def _nobody_lies(config: Mapping[str, Any]) -> bool:
    lying = flatten({key: config[key] for key in ("attack", "adversary", "cheat")})
    targets = [str(value) for key, value in lying.items() if key.endswith("_target_")]
    protocol = str(config["protocol"].get("_target_"))
    if not all(target.startswith(_OURS) for target in (*targets, protocol)):
        return False
    is_honest = not config["attack"] and not config["cheat"] and protocol == _SERVER
    return config["q"] == 0 or config["adversary"].get("_target_") == _NOBODY or is_honest
