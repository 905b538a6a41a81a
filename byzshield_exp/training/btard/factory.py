"""The choice ``protocol=btard``: one rank's end of it, made from a configuration."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor

from byzshield_exp.clusters import Channel, TransportOptions
from byzshield_exp.errors import RunError
from byzshield_exp.rows.parallel import new_rows
from byzshield_exp.training.btard.agreed import PeerOptions, check_experiment, clipping_of
from byzshield_exp.training.btard.attempt import Rules
from byzshield_exp.training.btard.calibration import calibrated
from byzshield_exp.training.btard.clip import Centre, Clipping, centre
from byzshield_exp.training.btard.peers import Btard
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.protocol import protocol_traits
from byzshield_exp.training.true_gradients import seats_and_truth


@protocol_traits(check=check_experiment, has_server=False)
def btard(
    experiment: Experiment,
    config: Mapping[str, Any],
    channel: Channel,
    runs: int,
    gpu_sharers: int,
    ban: Literal["validate", "bernoulli", "off"] = "validate",
    on_ban: Literal["drop", "replace_honest"] = "drop",
    validators: int = 1,
    projections: int = 1,
    delta_max: float | Literal["auto"] = "auto",
    ban_probability: float | Literal["auto"] = "auto",
) -> Btard:
    """Make this rank's end of the protocol.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        channel: what connects this process with the others.
        runs: that share this machine's cores.
        gpu_sharers: processes that share this one's GPU.
        ban: ``validate``: the protocol; ``bernoulli``: the coin of the public codes, by which an
            attacker bans itself; ``off``: the butterfly alone.
        on_ban: whether a banned peer is gone or goes on as an honest one.
        validators: peers a step that compute others' gradients of the step before again, with
            ``ban=validate``; from 0 to (K - 1) / 2.
        projections: random directions in which sums are checked, at least 1.
        delta_max: distance from a part's aggregate, > 0, beyond which more than half of the peers
            have it checked in public; ``auto``: from public files at the first parameters.
        ban_probability: of ``bernoulli``, in [0, 1], at each attack; ``auto``: ``(K - q) / K^2``.

    Raises:
        ConfigError: if a GPU has too little memory, or the public rows give no radius.
    """
    options = PeerOptions.of(config)
    seats, truth = seats_and_truth(experiment, config, channel, runs, gpu_sharers)
    is_heard = channel.rank == 0
    clipping, delta = calibrated(experiment, truth, clipping_of(config), options, is_heard)
    rules = Rules(
        experiment.seed, experiment.assignment.num_workers, len(experiment.params),
        options.projections, options.ban == "validate", clipping, delta,
        _aggregation(experiment, clipping, options),
    )  # fmt: skip
    transport = channel.open(
        seats,
        TransportOptions(worker_timeout=config["cluster"]["worker_timeout"], is_mesh=True),
        new_rows(0, experiment.flat.state[None].cpu()),
    )
    return Btard(
        experiment, transport, truth, options, rules, bool(config["profile"]), config["histograms"]
    )


def _aggregation(
    experiment: Experiment, clipping: Clipping, options: PeerOptions
) -> Callable[[Tensor], Centre]:
    """What a peer makes of the rows of its part: clipping, or without checks any rule."""
    if options.is_clipping:
        return lambda rows: centre(rows, clipping)

    def by_rule(rows: Tensor) -> Centre:
        if len(rows) == 0:
            return centre(rows, clipping)
        num_corrupt = min(experiment.num_corrupt, (len(rows) - 1) // 2)
        try:
            return Centre(experiment.defence(rows, num_corrupt))
        except ValueError as error:
            raise RunError(f"{len(rows)} peers are left: {error}") from error

    return by_rule
