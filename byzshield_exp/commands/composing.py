"""Compose configurations to compare with, and name what is chosen in each group."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

HEADS = ("approach", "experiment", "scale")  # choices that make other choices
LISTS = ("pre_aggregator", "cheat")  # groups of which several can be chosen


class Composed(NamedTuple):
    """A composition.

    Attributes:
        choices: of our groups.
        values: by dotted key, interpolations as written.
    """

    choices: dict[str, str]
    values: dict[str, Any]


def composed(*overrides: str) -> Composed:
    """Compose the configuration of some overrides."""
    return _composed_from(overrides, str(GlobalHydra.instance().config_loader().get_sources()))


@lru_cache(maxsize=256)  # composing takes as long as a small run
def _composed_from(overrides: tuple[str, ...], sources: str) -> Composed:
    found = compose("config", list(overrides), return_hydra_config=True)
    choices = chosen(found.hydra.runtime.choices, found)
    with open_dict(found):
        del found["hydra"]
    return Composed(choices, flat(found))


def flat(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration's values by dotted key, interpolations as written."""
    from byzshield_exp.results.recorder import flatten  # with torch: a typo does not wait for it

    return flatten(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]


def chosen(choices: Mapping[str, Any], cfg: DictConfig) -> dict[str, str]:
    """Return the choices of our groups, without Hydra's own and those that are not chosen."""
    groups = {
        group: choice
        for group, choice in choices.items()
        if choice is not None and not group.startswith("hydra/")
    }
    for group in LISTS:
        if group in cfg:  # Hydra drops the choices of a group with several
            groups.setdefault(
                group, _chain([name for name in cfg[group] if _is_known(group, name)])
            )
    return groups


def overrides_of(choices: Mapping[str, str]) -> list[str]:
    """Spell choices as overrides; those that were appended to the defaults are again."""
    typed = {override.partition("=")[0] for override in HydraConfig.get().overrides.task}
    return [f"{'+' * (f'+{group}' in typed)}{group}={name}" for group, name in choices.items()]


def named_choices(cfg: DictConfig) -> dict[str, str]:
    """Name what is chosen in each group: the choice, or its ``_target_`` if that is another.

    A choice whose ``_target_`` is not that of its file (``aggregator._target_=my_rules.middle``) is
    called by the target, whole: ``my_rules.middle``.
    """
    hydra = HydraConfig.get()
    choices = chosen(hydra.runtime.choices, cfg)
    is_typed = any("_target_" in override for override in hydra.overrides.task)
    if not is_typed and "experiment" not in choices:
        return choices
    files = {group: name for group, name in choices.items() if group not in HEADS[1:]}
    theirs, ours = composed(*overrides_of(files)).values, flat(cfg)
    return {group: _named(group, choices[group], cfg, ours, theirs) for group in choices}


def _named(
    group: str, choice: str, cfg: DictConfig, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> str:
    def name(node: str, choice: str) -> str:
        target = ours.get(f"{node}._target_")
        is_own = target is not None and target != theirs.get(f"{node}._target_")
        return str(target) if is_own else choice

    if group in LISTS and cfg.get(group):
        return _chain([name(f"{group}.{one}", one) for one in cfg[group]])
    return name(group.partition("@")[2] or group, choice)


def _chain(names: list[str]) -> str:
    """Spell several choices as typed, ``[a,b]``; one alone without brackets."""
    return names[0] if len(names) == 1 else f"[{','.join(names)}]"


def _is_known(group: str, name: Any) -> bool:
    return name in GlobalHydra.instance().config_loader().get_group_options(group)
