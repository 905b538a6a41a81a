"""The configuration: its schema, its checks, the name it gives a run, and its errors in a line."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from byzshield_exp.binding import did_you_mean
from byzshield_exp.commands.choices import conf_dir as conf_dir
from byzshield_exp.errors import ConfigError
from byzshield_exp.results.folder import is_free, same
from byzshield_exp.results.recorder import flatten
from hydra_plugins import byzshield_slurm_launcher

_GROUPS = (
    "approach", "adversary", "attack", "vote", "pre_aggregator", "aggregator", "dataset",
    "network", "optimizer", "cluster",
)  # fmt: skip
_HEADS = ("approach", "experiment", "scale")  # choices that make others
_LONGEST_NAME = 200  # file systems allow 255 bytes


@dataclass
class Cluster:
    """Where workers live."""

    num_processes: int | None = None
    worker_timeout: float = 300.0
    majority_of: str = "all"
    bucket_mib: float = 1.0


@dataclass
class Config:
    """Types of the top-level keys; ``conf/config.yaml`` holds their values and meaning.

    A group's arguments are checked against the function that the choice names.
    """

    approach: dict[str, Any] = field(default_factory=dict)
    adversary: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    vote: dict[str, Any] = field(default_factory=dict)
    pre_aggregator: dict[str, Any] = field(default_factory=dict)
    aggregator: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    cluster: Cluster = field(default_factory=Cluster)
    K: int = 15
    r: int = 3
    q: int = 3
    batch_size: Any = "auto"
    batch_rounding: str = "error"
    steps: int = 300
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    precision: str = "float32"
    worker_momentum: float = 0.0
    poison_statistics: bool = False
    on_nonfinite: str = "finish"
    eval_every: int = 50
    checkpoint_every: int = 50
    keep: int = 2
    output_dir: str = "outputs"
    on_invalid: str = "error"
    plan: bool = False
    profile: Any = False


def register() -> None:
    """Make the schema known to Hydra, and our launcher for Slurm to be the one of its name."""
    Plugins.instance()  # finds all plugins, of which another may have taken the name
    byzshield_slurm_launcher.register()
    ConfigStore.instance().store(name="schema", node=Config)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as dictionaries and values, checked, with the choice of every group.

    Raises:
        ConfigError: listing every key that is unknown or out of its bound.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    config["choices"] = _groups(HydraConfig.get().runtime.choices, cfg)
    for group in _GROUPS:
        if group not in config["choices"]:
            raise ConfigError(f"{group} is not chosen: it cannot be left out")
    launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
    if launcher not in ("local", "basic") and HydraConfig.get().mode == RunMode.RUN:
        raise ConfigError(f"hydra/launcher={launcher} works in a sweep only: add -m")
    if HydraConfig.get().sweeper.get("curves") and HydraConfig.get().mode == RunMode.RUN:
        raise ConfigError(
            f"experiment={config['choices'].get('experiment')} is a multirun of its curves: leave "
            "hydra.mode out"
        )
    problems = [*_unknown_keys(config), *_out_of_bounds(config), *_doubled()]
    if problems:
        raise ConfigError("; ".join(problems))
    if config["cluster"]["num_processes"] is None:
        config["cluster"]["num_processes"] = config["K"] + 1
    return dict(config)


def _unknown_keys(config: Mapping[str, Any]) -> list[str]:
    problems = []
    for prefix, node in {"": Config, "cluster.": Cluster}.items():
        known = [entry.name for entry in fields(node)]
        values = config[prefix[:-1]] if prefix else config
        problems += [
            f"unknown key {prefix}{key}{did_you_mean(key, known)}"
            for key in values
            if key not in known and key != "choices"
        ]
    return problems


def _out_of_bounds(config: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in ("K", "r", "steps", "threads", "eval_every", "checkpoint_every", "keep"):
        if config[key] < 1:
            problems.append(f"{key}={config[key]} must be at least 1")
    for key in ("q", "seed"):
        if config[key] < 0:
            problems.append(f"{key}={config[key]} must be at least 0")
    if config["q"] > config["K"] >= 1:
        problems.append(f"q={config['q']} must be at most K={config['K']}")
    if not 0 <= config["worker_momentum"] < 1:
        problems.append(f"worker_momentum={config['worker_momentum']} must lie in [0, 1)")
    for key, choices in {
        "batch_rounding": ("error", "down"),
        "device": ("cpu", "cuda"),
        "precision": ("float32", "tf32", "bf16"),
        "on_nonfinite": ("finish", "stop", "skip_step"),
        "on_invalid": ("error", "skip"),
        "profile": (False, True, "metrics"),
    }.items():
        if config[key] not in choices:
            names = ", ".join(str(choice).lower() for choice in choices)
            problems.append(f"{key}={config[key]} must be one of {names}")
    if config["precision"] == "tf32" and config["device"] == "cpu":
        problems.append("precision=tf32 needs device=cuda")
    return problems + _cluster_problems(config)


def _doubled() -> list[str]:
    """Hydra keeps one of several equal choices of a group."""
    problems = []
    for override in HydraConfig.get().overrides.task:
        key, _, value = override.partition("=")
        names = value.strip("[]").replace(" ", "").split(",")
        if key == "pre_aggregator" and value.startswith("[") and len(set(names)) < len(names):
            problems.append(f"{override}: each pre-aggregator can be chosen once")
    return problems


def _cluster_problems(config: Mapping[str, Any]) -> list[str]:
    cluster, most = config["cluster"], config["K"] + 1
    count, is_local = cluster["num_processes"], config["choices"]["cluster"] == "local"
    problems = []
    if is_local and count != 1:
        problems.append(
            f"cluster.num_processes={count} must be 1 with cluster=local: use cluster=processes"
        )
    if not is_local and count is not None and not 2 <= count <= most:
        problems.append(f"cluster.num_processes={count} must lie between 2 and K+1={most}")
    if not 0 < cluster["worker_timeout"] < math.inf:
        problems.append(
            f"cluster.worker_timeout={cluster['worker_timeout']} must be above 0 and finite"
        )
    if not 1 / 1024 <= cluster["bucket_mib"] <= 1024:
        problems.append(f"cluster.bucket_mib={cluster['bucket_mib']} must lie in [1/1024, 1024]")
    if cluster["majority_of"] not in ("all", "present"):
        problems.append(f"cluster.majority_of={cluster['majority_of']} must be one of all, present")
    return problems


def run_name(cfg: DictConfig) -> str:
    """A folder name made of every choice and value that is not a default, whatever their order.

    Values are compared with a composition of the same choices, so that typing a default changes
    nothing, and an aggregator that an approach implies is not named.
    """
    choices = _groups(HydraConfig.get().runtime.choices, cfg)
    heads = [f"{group}={choices[group]}" for group in _HEADS if group in choices]
    standard, implied = _choices_of(), _choices_of(*heads)
    outer = [f"{group}={choice}" for group, choice in choices.items() if "@" not in group]
    inner = _choices_of(*outer) if len(outer) < len(choices) else {}  # a choice's own default
    parts = {
        group: choice
        for group, choice in choices.items()
        if choice != (standard if group in _HEADS else inner | implied).get(group)
    }
    reference = _composed(*(f"{group}={choice}" for group, choice in choices.items())).values
    mine = _flat(cfg)
    parts |= {
        key: value
        for key, value in mine.items()
        if not is_free(key) and (key not in reference or not same(reference[key], value))
    }
    named = ",".join(f"{key}={_spelled(value)}" for key, value in sorted(parts.items()))
    return _safe(named or "default")


class _Composed(NamedTuple):
    choices: dict[str, str]
    values: dict[str, Any]


def _choices_of(*overrides: str) -> dict[str, str]:
    return _composed(*overrides).choices


def _composed(*overrides: str) -> _Composed:
    return _composed_from(overrides, str(GlobalHydra.instance().config_loader().get_sources()))


@lru_cache(maxsize=256)  # composing takes as long as a small run
def _composed_from(overrides: tuple[str, ...], sources: str) -> _Composed:
    composed = compose("config", list(overrides), return_hydra_config=True)
    groups = _groups(composed.hydra.runtime.choices, composed)
    with open_dict(composed):
        del composed["hydra"]
    return _Composed(groups, _flat(composed))


def _flat(cfg: DictConfig) -> dict[str, Any]:
    return flatten(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]


def _groups(choices: Mapping[str, Any], cfg: DictConfig) -> dict[str, str]:
    """Our groups among Hydra's, without those that are not chosen."""
    groups = {
        group: choice
        for group, choice in choices.items()
        if choice is not None and not group.startswith("hydra/")
    }
    if "pre_aggregator" in cfg:  # Hydra forgets the choices of a group that has several
        groups.setdefault("pre_aggregator", _chain(list(cfg.pre_aggregator)))
    return groups


def _chain(names: list[Any]) -> str:
    """Several choices as they are typed; one without brackets."""
    known = GlobalHydra.instance().config_loader().get_group_options("pre_aggregator")
    chosen = [name for name in names if name in known]
    return chosen[0] if len(chosen) == 1 else f"[{','.join(chosen)}]"


def _spelled(value: Any) -> str:
    """One spelling for 1 and 1.0, which configure the same run; a chain as a+b."""
    if isinstance(value, str) and value.startswith("["):
        return value.strip("[]").replace(",", "+")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _safe(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", name)
    if len(safe) > _LONGEST_NAME:
        safe = f"{safe[: _LONGEST_NAME - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return safe


def one_line(error: BaseException) -> str:
    """An error of Hydra or OmegaConf as one line that names the key and what is allowed."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, MissingConfigException) and cause.options is not None:
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            near = did_you_mean(choice, list(cause.options))
            return f"{group}={choice}: no such choice, there are {', '.join(cause.options)}{near}"
    if isinstance(error, OverrideParseException):
        quoted = "'key=\"value\"'"
        return f"{error.override}: not understood; a value with odd characters needs {quoted}"
    if "'curves' not in" in str(error):
        return "hydra/sweeper: an experiment with curves needs hydra/sweeper=byzshield"
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return _key_error(error, cause)
    return " ".join(str(error).split())


def _key_error(error: BaseException, cause: OmegaConfBaseException) -> str:
    key = str(cause.full_key)
    reason = (cause.msg or str(cause)).strip().splitlines()[0]
    if isinstance(cause, MissingMandatoryValue):
        return f"{key} is not given"
    if "is not in struct" in reason or "not in '" in reason:
        typed = re.search(r"override '([^']*)'", str(error))
        name = typed.group(1) if typed else key
        known = [entry.name for entry in fields(Config)]
        parent = name.partition(".")[0]
        if name.startswith("hydra.launcher."):
            parent = "hydra.launcher"
        if "." in name and parent in (*known, "hydra.launcher"):
            node = cause.parent_node if isinstance(cause.parent_node, DictConfig) else {}
            options = [str(option) for option in node if option != "_target_"]
            near = did_you_mean(name.rpartition(".")[2], options)
            return f"unknown key {name}, {parent} has {', '.join(options) or 'no arguments'}{near}"
        return f"unknown key {name}{did_you_mean(name, known)} (--help lists all keys)"
    return f"{key}: {reason}"
