"""Name the folder of a run after its configuration."""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from byzshield_exp.commands.composing import (
    HEADS,
    chosen,
    composed,
    flat,
    named_choices,
    overrides_of,
)
from byzshield_exp.commands.config import torchrun_size
from byzshield_exp.results.folder import is_free, is_place, same

_LONGEST_NAME = 200  # file systems allow 255 bytes


def run_name(cfg: DictConfig) -> str:
    """Make a folder name of every choice and value that is not a default, whatever their order.

    Values are compared with a composition of the same choices. So typing a default changes nothing,
    and an aggregator that an approach implies is not named. A curve of an experiment is called by
    its name, then the experiment's, then what differs from that curve.
    """
    hydra = HydraConfig.get()
    raw, names = chosen(hydra.runtime.choices, cfg), named_choices(cfg)
    curve = shlex.split(hydra.sweeper.curves[cfg.curve]) if cfg.curve else []
    kept = _files(raw, names, [_key(given) for given in curve])
    values = [given for given in curve if _key(given) not in raw]
    reference, ours = composed(*overrides_of(kept), *values).values, flat(cfg)
    own = {key for key in ours if _named_by_target(key, names.keys() - kept.keys())}
    parts: dict[str, Any] = _choices_to_name(names | kept, kept, curve)
    parts |= {
        key: ours[key]
        for key in ours.keys() - own
        if _is_named(key, ours[key])
        and (key not in reference or not same(reference[key], ours[key]))
    }
    gone = [f"~{key}" for key in reference if key not in ours and _is_named(key, reference[key])]
    head = [cfg.curve, raw.get("experiment", "")] if cfg.curve else []
    named = [f"{key}={_spelled(value)}" for key, value in sorted(parts.items())]
    return _safe(",".join(filter(None, [*head, *named, *sorted(gone)])) or "default")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _files(raw: Mapping[str, str], names: Mapping[str, str], by_curve: list[str]) -> dict[str, str]:
    """Return the choices that are what their files say, or what the curve makes of them.

    The others are called by their ``_target_``, whichever file that was put into.
    """
    own = {group for group in raw if names[group] != raw[group] and group not in by_curve}
    return {
        group: choice
        for group, choice in raw.items()
        if group not in own and group.partition("@")[2].partition(".")[0] not in own
    }


def _named_by_target(key: str, groups: Sequence[str] | set[str]) -> bool:
    """Whether a key is the ``_target_`` that a group is called by."""
    nodes = [group.partition("@")[2] or group for group in groups]
    return key.endswith("._target_") and any(key.startswith(f"{node}.") for node in nodes)


def _is_named(key: str, value: Any) -> bool:
    is_elsewhere = key == "cluster.num_processes" and torchrun_size() is not None
    return not is_free(key) and not is_place(key, value) and not is_elsewhere


def _choices_to_name(
    names: Mapping[str, str], kept: Mapping[str, str], curve: Sequence[str]
) -> dict[str, str]:
    """Return the choices that are neither a default nor implied by another choice or the curve."""
    heads = {group: kept[group] for group in HEADS if group in kept}
    of_curve = [given for given in curve if _key(given) in kept and _key(given) not in HEADS]
    start = [given for given in curve if _key(given) in kept] if curve else []
    if curve and "experiment" in heads:
        start.append(f"experiment={heads['experiment']}")
    standard = composed(*start).choices
    implied = composed(*overrides_of(heads), *of_curve).choices
    outer = {group: choice for group, choice in kept.items() if "@" not in group}
    is_nested = len(outer) < len(kept)  # defaults inside choices
    inner = composed(*overrides_of(outer)).choices if is_nested else {}
    return {
        group: name
        for group, name in names.items()
        if name != (standard if group in HEADS else inner | implied).get(group)
    }


def _spelled(value: Any) -> str:
    """Spell a value: 1 and 1.0 alike, as they configure the same run; a chain as a+b."""
    if isinstance(value, str) and value.startswith("["):
        return value.strip("[]").replace(",", "+")
    if isinstance(value, str) and "/" in value:  # a path: its end, and what tells it from others
        return f"{value.rpartition('/')[2]}-{_short_digest(value)}"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _safe(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._=,+~-]+", "_", name)
    if len(safe) > _LONGEST_NAME:
        safe = f"{safe[: _LONGEST_NAME - 13]}-{_short_digest(name)}"
    return safe
