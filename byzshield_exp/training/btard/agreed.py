"""What BTARD can run, checked before a worker starts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byzshield_exp.errors import ConfigError
from byzshield_exp.training.btard.clip import Clipping

if TYPE_CHECKING:
    from byzshield_exp.training.experiment import Experiment

_TOLERANCE, _ITERATIONS = 1e-6, 1000
_CLIP, _MEAN = "centered_clip", "mean"  # functions

Config = Mapping[str, Any]


@dataclass(frozen=True)
class PeerOptions:
    """The keys of ``protocol``, in their ranges.

    Attributes:
        ban: ``validate``, ``bernoulli`` or ``off``.
        on_ban: ``drop`` or ``replace_honest``.
        validators: m.
        projections: k.
        delta_max: None: to be calibrated.
        probability: of ``bernoulli``.
        is_clipping: whether parts are clipped, or averaged; else another rule aggregates them.
    """

    ban: str
    on_ban: str
    validators: int
    projections: int
    delta_max: float | None
    probability: float
    is_clipping: bool

    @classmethod
    def of(cls, config: Config) -> "PeerOptions":
        """Read the keys.

        Raises:
            ConfigError: with the key, the value and the bound.
        """
        given, peers, liars = config["protocol"], config["K"], config["q"]
        validators, projections = given.get("validators", 1), given.get("projections", 1)
        delta, coin = given.get("delta_max", "auto"), given.get("ban_probability", "auto")
        most = (peers - 1) // 2
        if not 0 <= validators <= most:
            raise ConfigError(
                f"protocol.validators={validators} must lie between 0 and (K - 1) / 2 = {most}"
            )
        if projections < 1:
            raise ConfigError(f"protocol.projections={projections} must be at least 1")
        if delta != "auto" and not delta > 0:
            raise ConfigError(f"protocol.delta_max={delta} must be above 0")
        if coin != "auto" and not 0 <= coin <= 1:
            raise ConfigError(f"protocol.ban_probability={coin} must lie in [0, 1]")
        return cls(
            given.get("ban", "validate"), given.get("on_ban", "drop"), validators, projections,
            None if delta == "auto" else float(delta),
            (peers - liars) / peers**2 if coin == "auto" else coin,
            _function(config) in (_CLIP, _MEAN),
        )  # fmt: skip


def clipping_of(config: Config) -> Clipping | None:
    """How parts are clipped; ``tau`` is NaN where it is to be calibrated; None: another rule."""
    rule, name = config["aggregator"], _function(config)
    if name == _MEAN:
        return Clipping(math.inf, _TOLERANCE)
    if name != _CLIP:
        return None
    tau = rule["tau"]
    return Clipping(
        math.nan if tau == "calibrated" else float(tau),
        rule.get("tolerance") or _TOLERANCE,
        rule.get("iterations") or _ITERATIONS,
    )


def check_experiment(experiment: "Experiment", config: Config) -> list[str]:
    """Refuse what BTARD cannot run; return notes.

    Raises:
        ConfigError: in one line.
    """
    options = PeerOptions.of(config)
    _check_placement(experiment, config)
    for name, choice in config["cheat"].items():
        if choice.get("victims", 0) < 0:  # more than there are is all of them
            raise ConfigError(f"cheat.{name}.victims={choice['victims']} must be at least 0")
    _check_defence(config, options)
    peers, liars = config["K"], config["q"]
    validators = options.validators if options.ban == "validate" else 0
    if 2 * liars >= peers - validators:
        return [
            f"q={liars} of K={peers} peers lie, half of those who compute or more "
            f"(validators={validators}): BTARD promises nothing"
        ]
    return []


def _check_placement(experiment: "Experiment", config: Config) -> None:
    approach, assignment = config["choices"]["approach"], experiment.assignment
    if assignment.replication != 1 or assignment.num_files != assignment.num_workers:
        raise ConfigError(
            f"approach={approach} protocol=btard: needs a file per peer, as approach=btard has, "
            f"not r={assignment.replication} and f={assignment.num_files} for K={config['K']}"
        )
    if config["choices"]["vote"] == "tolerant":
        raise ConfigError("vote=tolerant protocol=btard: peers compare bytes")
    if config["cluster"]["majority_of"] != "all":
        raise ConfigError("cluster.majority_of=present protocol=btard: nothing is voted")


def _check_defence(config: Config, options: PeerOptions) -> None:
    if config["pre_aggregator"]:
        name = config["choices"]["pre_aggregator"]
        raise ConfigError(f"pre_aggregator={name} protocol=btard: peers cannot check it")
    if config["worker_momentum"]:
        raise ConfigError(
            f"worker_momentum={config['worker_momentum']} protocol=btard: validators would need "
            "all steps before"
        )
    _check_clipping(config)
    if options.ban != "validate":
        if config["cheat"]:
            raise ConfigError(
                f"cheat={config['choices']['cheat']} protocol.ban={options.ban}: only "
                "protocol.ban=validate has the rounds to cheat in"
            )
        return
    name = config["choices"]["aggregator"]
    if not options.is_clipping:
        raise ConfigError(
            f"aggregator={name} protocol.ban=validate: only centred clipping and the mean can be "
            "checked: take aggregator=centered_clip_btard or mean"
        )
    if config["choices"]["adversary"] == "random":
        raise ConfigError(
            "adversary=random protocol.ban=validate: a ban is for good, and other liars at every "
            "step would get all peers banned: take adversary=fixed_random"
        )


def _check_clipping(config: Config) -> None:
    rule = config["aggregator"]
    if _function(config) != _CLIP:
        return
    if rule.get("tau", "auto") == "auto":
        raise ConfigError(
            "aggregator.tau=auto protocol=btard: a radius that an aggregator finds in its rows "
            "cannot be checked: take aggregator.tau=calibrated or a number"
        )
    if rule.get("start") != "median":
        raise ConfigError(
            f"aggregator.start={rule.get('start')} protocol=btard: parts are clipped to a fixed "
            "point, from their median: take aggregator=centered_clip_btard"
        )


def _function(config: Config) -> str:
    return str(config["aggregator"]["_target_"]).rpartition(".")[2]
