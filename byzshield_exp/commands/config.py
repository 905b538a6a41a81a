"""Define the schema of the configuration, and check its values."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from byzshield_exp.binding import did_you_mean
from byzshield_exp.commands.choices import VALUES, refuse_shadowing
from byzshield_exp.commands.command_line import command_line
from byzshield_exp.commands.composing import LISTS, named_choices
from byzshield_exp.commands.keys import meant_key
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import warn

# For Hydra's functions: 1.4 has one behaviour, and warns where this is given.
VERSION_BASE: dict[str, Any] = (
    {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
)
_GROUPS = (
    "approach", "adversary", "attack", "vote", "pre_aggregator", "aggregator", "dataset",
    "network", "optimizer", "cluster", "protocol", "cheat",
)  # fmt: skip


@dataclass
class ClusterKeys:
    """The keys of ``cluster``: which processes play the workers."""

    num_processes: int | None = None
    backend: str = "auto"
    server_plays: Any = "auto"
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
    cluster: ClusterKeys = field(default_factory=ClusterKeys)
    protocol: dict[str, Any] = field(default_factory=dict)
    cheat: dict[str, Any] = field(default_factory=dict)
    K: int = 15
    r: int = 3
    q: int = 3
    batch_size: Any = "auto"
    batch_rounding: str = "error"
    steps: int = 300
    epochs: Any = None
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
    overwrite: bool = False
    curve: str | None = None
    profile: Any = False
    histograms: bool = False


def register() -> None:
    """Make the schema known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Check a configuration and convert it to plain dictionaries.

    It also gets the name of every choice (``choices``) and the command that repeats it.

    Raises:
        ConfigError: lists every key that is unknown or out of bounds.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    config["choices"] = named_choices(cfg)
    config["overwrite"] = config["overwrite"] and not _is_restarted()
    for group in _GROUPS:
        if group not in config["choices"]:
            raise ConfigError(f"{group} is not chosen: it cannot be left out")
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider != "main" and source.schema == "file":
            refuse_shadowing(source.path)
    if HydraConfig.get().mode == RunMode.RUN:
        _check_single_run(config["choices"].get("experiment"))
    else:
        _warn_of_objective(
            HydraConfig.get().runtime.choices["hydra/sweeper"],
            str(HydraConfig.get().sweeper.get("direction", "")),
            bool(config["dataset"].get("num_validation")),
        )
    problems = [*_unknown_keys(config), *_out_of_bounds(config), *_out_of_choices(config)]
    problems += [*_cluster_problems(config), *_repeated_choices(), *_unknown_curve(config)]
    problems += [*_two_lengths(config)]
    if problems:
        raise ConfigError("; ".join(problems))
    if config["cluster"]["num_processes"] is None:
        one_each = config["K"] + (not _server_plays(config["cluster"]))
        config["cluster"]["num_processes"] = torchrun_size() or one_each
    problems = [*_process_problems(config)]
    if problems:
        raise ConfigError("; ".join(problems))
    return {**config, "command": command_line(HydraConfig.get(), torchrun_size())}


def torchrun_size() -> int | None:
    """Return the number of processes if torchrun started this one, else None.

    Elsewhere nothing is imported: torch takes 2 s.
    """
    if "RANK" not in os.environ:
        return None
    from byzshield_exp.clusters import torchrun_size

    return torchrun_size()


def _is_restarted() -> bool:
    """Whether torchrun has started this command again: what it has done since counts."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _check_single_run(experiment: str | None) -> None:
    """Refuse what only a sweep can do.

    Raises:
        ConfigError: for curves, and for any launcher but local and basic.
    """
    launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
    if launcher not in ("local", "basic"):
        raise ConfigError(f"hydra/launcher={launcher} works in a sweep only: add -m")
    if HydraConfig.get().sweeper.get("curves"):
        raise ConfigError(
            f"experiment={experiment} is a multirun of its curves: leave hydra.mode out"
        )


@cache  # once a process
def _warn_of_objective(sweeper: str, direction: str, is_held_out: bool) -> None:
    if "minimize" in direction.lower():
        warn(
            f"hydra/sweeper={sweeper} looks for the lowest accuracy: "
            "hydra.sweeper.direction=maximize for the highest"
        )
    if sweeper not in ("byzshield", "basic") and not is_held_out:
        warn(
            f"hydra/sweeper={sweeper} chooses by the test accuracy, as no pictures are held out: "
            "dataset.num_validation=N holds out N"
        )


def _unknown_curve(config: Mapping[str, Any]) -> Iterator[str]:
    curve, known = config["curve"], HydraConfig.get().sweeper.get("curves") or {}
    if curve is not None and curve not in known:
        yield f"curve={curve}: leave it out, it is set by a sweep of curves"


def _unknown_keys(config: Mapping[str, Any]) -> Iterator[str]:
    for prefix, node in {"": Config, "cluster.": ClusterKeys}.items():
        known = [entry.name for entry in fields(node)]
        for key in config[prefix[:-1]] if prefix else config:
            if key not in (*known, "choices"):
                typed = HydraConfig.get().overrides.task
                near = did_you_mean(key, known) if prefix else meant_key(key, typed)
                yield f"unknown key {prefix}{key}{near}"


def _out_of_bounds(config: Mapping[str, Any]) -> Iterator[str]:
    for key in ("K", "r", "steps", "threads", "eval_every", "checkpoint_every", "keep"):
        if config[key] < 1:
            yield f"{key}={config[key]} must be at least 1"
    for key in ("q", "seed"):
        if config[key] < 0:
            yield f"{key}={config[key]} must be at least 0"
    if config["q"] > config["K"] >= 1:
        yield f"q={config['q']} must be at most K={config['K']}"
    epochs = config["epochs"]
    if epochs is not None and (
        not isinstance(epochs, int | float) or isinstance(epochs, bool) or not 0 < epochs < math.inf
    ):
        yield f"epochs={epochs} must be a number above 0, or null"
    if not 0 <= config["worker_momentum"] < 1:
        yield f"worker_momentum={config['worker_momentum']} must lie in [0, 1)"


def _out_of_choices(config: Mapping[str, Any]) -> Iterator[str]:
    for key, known in VALUES.items():
        group, _, name = key.rpartition(".")
        value = (config[group] if group else config)[name]
        if not any(type(value) is type(one) and value == one for one in known):  # 1 is not true
            names = ", ".join(str(one).lower() for one in known)
            yield f"{key}={value} must be one of {names}"
    if config["precision"] == "tf32" and config["device"] == "cpu":
        yield "precision=tf32 needs device=cuda"


def _cluster_problems(config: Mapping[str, Any]) -> Iterator[str]:
    cluster = config["cluster"]
    count, is_local = cluster["num_processes"], config["choices"]["cluster"] == "local"
    timeout, bucket, backend = (cluster[key] for key in ("worker_timeout", "bucket_mib", "backend"))
    if is_local and count != 1:
        yield f"cluster.num_processes={count} must be 1 with cluster=local: use cluster=processes"
    for key in ("backend", "server_plays"):
        if is_local and cluster[key] != "auto":
            yield f"cluster.{key}={_written(cluster[key])} needs cluster=processes or torchrun"
    if backend == "nccl" and config["device"] != "cuda":
        yield f"cluster.backend=nccl needs device=cuda, not device={config['device']}"
    if backend in ("gloo", "nccl") and cluster["majority_of"] == "present":
        yield f"cluster.majority_of=present needs cluster.backend=sockets: {backend} bears no loss"
    if backend == "sockets" and cluster["server_plays"] is True:
        yield "cluster.server_plays=true needs cluster.backend=gloo or nccl"
    if cluster["server_plays"] is True and cluster["majority_of"] == "present":
        yield "cluster.server_plays=true needs cluster.majority_of=all"
    if not 0 < timeout < math.inf:
        yield f"cluster.worker_timeout={timeout} must be above 0 and finite"
    if not 1 / 1024 <= bucket <= 1024:
        yield f"cluster.bucket_mib={bucket} must lie in [1/1024, 1024]"


def _process_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Compare the number of processes with that of workers; one under torchrun plays everybody."""
    cluster, workers = config["cluster"], config["K"]
    count, plays = cluster["num_processes"], _server_plays(cluster)
    if config["choices"]["cluster"] == "local" or (count == 1 and torchrun_size() == 1):
        return
    if plays and not 1 <= count <= workers:
        yield f"cluster.num_processes={count} must lie between 1 and K={workers}"
    if not plays and not 2 <= count <= workers + 1:
        yield f"cluster.num_processes={count} must lie between 2 and K+1={workers + 1}"


def _server_plays(cluster: Mapping[str, Any]) -> bool:
    asked = cluster["server_plays"]
    return asked is True or (asked == "auto" and cluster["backend"] == "nccl")


def _two_lengths(config: Mapping[str, Any]) -> Iterator[str]:
    """Refuse steps that are typed beside epochs; epochs replace those of an experiment."""
    typed = {override.partition("=")[0] for override in HydraConfig.get().overrides.task}
    if config["epochs"] is not None and "steps" in typed:
        yield f"epochs={config['epochs']} and steps={config['steps']}: give one of them"


def _written(value: Any) -> str:
    return str(value).lower()


def _repeated_choices() -> Iterator[str]:
    """Find what is chosen twice in a list: Hydra silently keeps one of them."""
    for override in HydraConfig.get().overrides.task:
        key, _, value = override.partition("=")
        names = value.strip("[]").replace(" ", "").split(",")
        if key in LISTS and value.startswith("[") and len(set(names)) < len(names):
            yield f"{override}: each {key.replace('_', '-')} can be chosen once"
