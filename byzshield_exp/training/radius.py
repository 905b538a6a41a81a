"""The radius of centred clipping, found once in public files at the initial parameters.

A radius that an aggregator finds in the rows it receives cannot be checked, and liars move it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.coordinates import coordinate_median
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import say
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gradients import TrueGradients


def public_rows(
    experiment: Experiment, truth: TrueGradients, most: int | None = None
) -> Float[Tensor, "n d"]:
    """Compute the true gradients of step 0's files, on the CPU.

    Args:
        experiment: its parameters are still the initial ones.
        truth: of this process.
        most: take the first files only, this many; None: all.
    """
    files = range(experiment.assignment.num_files)[:most]
    rows = experiment.params.new_empty((len(files), len(experiment.params)), device="cpu")
    for start in range(0, len(files), truth.num_threads):
        some = files[start : start + truth.num_threads]
        rows[some.start : some.stop] = truth.rows_at(0, experiment.params, some)
    return rows


def distances(rows: Float[Tensor, "n d"], parts: Sequence[slice]) -> Float[Tensor, "n p"]:
    """Distances of rows to their coordinate-wise median, part by part, in float64.

    Args:
        rows: at least one.
        parts: of the coordinates; ``[slice(None)]`` for all at once.
    """
    centre = coordinate_median(rows).double()
    found = [[(row[part] - centre[part]).norm() for part in parts] for row in rows]
    return torch.tensor(found, dtype=torch.float64)


def calibrated_tau(apart: Float[Tensor, "n p"]) -> float:
    """Return the (lower) median of distances.

    Raises:
        ConfigError: unless it is a radius: positive and finite.
    """
    tau = float(apart.median())
    if not 0 < tau < torch.inf:
        raise ConfigError(
            f"aggregator.tau=calibrated: the files' gradients at the initial parameters are {tau} "
            "from their median: give a number"
        )
    return tau


def with_radius(experiment: Experiment, truth: TrueGradients, is_heard: bool) -> Experiment:
    """Find ``tau=calibrated`` for whole rows, and put the number into the rule.

    Every rank does, as attacks may see the defence. With another tau nothing happens.

    Args:
        experiment: its parameters are still the initial ones.
        truth: of this process.
        is_heard: whether to tell the user.

    Raises:
        ConfigError: as :func:`calibrated_tau`.
    """
    defence = experiment.defence
    if defence.rule.keywords.get("tau") != "calibrated":
        return experiment
    tau = calibrated_tau(distances(public_rows(experiment, truth), [slice(None)]))
    if is_heard:
        say(f"aggregator.tau=calibrated is {tau:.6g}")
    rule = partial(defence.rule, tau=tau)
    return replace(experiment, defence=replace(defence, rule=rule), tau=tau)
