"""Name the folder of a run after its configuration."""

import hashlib
import re
from functools import lru_cache
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from byzshield_exp.commands.config import chosen, torchrun_size
from byzshield_exp.results.folder import is_free, same
from byzshield_exp.results.recorder import flatten

_HEADS = ("approach", "experiment", "scale")  # choices that make other choices
_LONGEST_NAME = 200  # file systems allow 255 bytes


class _Composed(NamedTuple):
    choices: dict[str, str]
    values: dict[str, Any]


def run_name(cfg: DictConfig) -> str:
    """Make a folder name of every choice and value that is not a default, whatever their order.

    Values are compared with a composition of the same choices. So typing a default changes nothing,
    and an aggregator that an approach implies is not named.
    """
    choices = chosen(HydraConfig.get().runtime.choices, cfg)
    typed = {override.partition("=")[0] for override in HydraConfig.get().overrides.task}
    reference = _composed(
        *(
            f"{'+' * (f'+{group}' in typed)}{group}={choice}"  # appended to the defaults
            for group, choice in choices.items()
        )
    ).values
    parts: dict[str, Any] = _choices_to_name(choices)
    chosen_elsewhere = {"cluster.num_processes"} if torchrun_size() else set()
    parts |= {
        key: value
        for key, value in _flat(cfg).items()
        if not is_free(key)
        and key not in chosen_elsewhere
        and (key not in reference or not same(reference[key], value))
    }
    named = ",".join(f"{key}={_spelled(value)}" for key, value in sorted(parts.items()))
    return _safe(named or "default")


def _choices_to_name(choices: dict[str, str]) -> dict[str, str]:
    """Return the choices that are neither a default nor implied by another choice."""
    heads = [f"{group}={choices[group]}" for group in _HEADS if group in choices]
    standard, implied = _choices_of(), _choices_of(*heads)
    outer = [f"{group}={choice}" for group, choice in choices.items() if "@" not in group]
    inner = _choices_of(*outer) if len(outer) < len(choices) else {}  # defaults inside choices
    return {
        group: choice
        for group, choice in choices.items()
        if choice != (standard if group in _HEADS else inner | implied).get(group)
    }


def _choices_of(*overrides: str) -> dict[str, str]:
    return _composed(*overrides).choices


def _composed(*overrides: str) -> _Composed:
    return _composed_from(overrides, str(GlobalHydra.instance().config_loader().get_sources()))


@lru_cache(maxsize=256)  # composing takes as long as a small run
def _composed_from(overrides: tuple[str, ...], sources: str) -> _Composed:
    composed = compose("config", list(overrides), return_hydra_config=True)
    choices = chosen(composed.hydra.runtime.choices, composed)
    with open_dict(composed):
        del composed["hydra"]
    return _Composed(choices, _flat(composed))


def _flat(cfg: DictConfig) -> dict[str, Any]:
    return flatten(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]


def _spelled(value: Any) -> str:
    """Spell a value: 1 and 1.0 alike, as they configure the same run; a chain as a+b."""
    if isinstance(value, str) and value.startswith("["):
        return value.strip("[]").replace(",", "+")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _safe(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", name)
    if len(safe) > _LONGEST_NAME:
        safe = f"{safe[: _LONGEST_NAME - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return safe
