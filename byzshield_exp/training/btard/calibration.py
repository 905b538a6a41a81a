"""Radius and bounds that all peers find for themselves, from public files."""

import math
from dataclasses import replace

from byzshield_exp.notices import say
from byzshield_exp.training.btard.agreed import PeerOptions
from byzshield_exp.training.btard.clip import Clipping
from byzshield_exp.training.btard.parts import parts
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.radius import calibrated_tau, distances, public_rows

_FILES = 8  # at most: their rows are in memory together
_FAR = 10.0  # times the usual distance, where a part is checked in public


def calibrated(
    experiment: Experiment,
    truth: TrueGradients,
    clipping: Clipping | None,
    options: PeerOptions,
    is_heard: bool,
) -> tuple[Clipping, float]:
    """Fill in ``tau`` and ``delta_max`` where they are to be found.

    Args:
        experiment: its parameters are still the first ones.
        truth: computes gradients.
        clipping: its ``tau`` is NaN where it is to be calibrated; None: another rule.
        options: as chosen.
        is_heard: whether to tell the user.
    """
    clipping = clipping or Clipping(math.inf, 1.0)
    asks_delta = options.delta_max is None and options.ban == "validate"
    delta = math.inf if options.delta_max is None else options.delta_max
    if not (math.isnan(clipping.tau) or asks_delta):
        return clipping, delta
    num_files = experiment.assignment.num_files
    rows = public_rows(experiment, truth, _FILES)
    every, found = distances(rows, parts(rows.shape[1], num_files)), []
    if math.isnan(clipping.tau):
        clipping = replace(clipping, tau=calibrated_tau(every))
        found.append(f"aggregator.tau=calibrated is {clipping.tau:.6g}")
    if asks_delta:
        usual = float(every.median(dim=0).values.max())
        delta = _FAR * usual + (0 if math.isinf(clipping.tau) else clipping.tau)
        found.append(f"protocol.delta_max=auto is {delta:.6g}")
    if is_heard:
        say(", ".join(found))
    return clipping, delta
