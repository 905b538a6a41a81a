"""WHAT TO DO WITH THE WINNERS: robust rules as pure functions of stacked rows.

Every rule is ``rule(rows [n, d], num_corrupt, **options) -> [d]``, every pre-aggregator
``(rows, num_corrupt, **options) -> (rows, num_corrupt)``. ``num_corrupt`` is how many rows may be
forged. No rule modifies its input; type and device stay. Rows with NaN or Inf are set aside and
count as corrupt: more of them than ``num_corrupt`` raise :class:`NonFiniteRows`. A rule whose
formula is undefined for ``(n, num_corrupt)`` raises ``ValueError`` with both numbers.
"""

from byzshield_exp.aggregators.coordinates import (
    meamed,
    mean,
    median,
    median_of_means,
    phocas,
    sign_majority,
    trimmed_mean,
)
from byzshield_exp.aggregators.defence import Defence, DefencePlan
from byzshield_exp.aggregators.filters import cge, sign_guard
from byzshield_exp.aggregators.geometric import centered_clip, geometric_median
from byzshield_exp.aggregators.geometry import Geometry, squared_distances
from byzshield_exp.aggregators.mixings import arc, bucketing, nnm, static_clip
from byzshield_exp.aggregators.neighbours import bulyan, krum, monna, multi_krum
from byzshield_exp.aggregators.policy import NonFiniteRows, Unclean
from byzshield_exp.aggregators.spectral import caf, dnc
from byzshield_exp.aggregators.subsets import mda, smea

__all__ = [
    "Defence",
    "DefencePlan",
    "Geometry",
    "NonFiniteRows",
    "Unclean",
    "arc",
    "bucketing",
    "bulyan",
    "caf",
    "centered_clip",
    "cge",
    "dnc",
    "geometric_median",
    "krum",
    "mda",
    "meamed",
    "mean",
    "median",
    "median_of_means",
    "monna",
    "multi_krum",
    "nnm",
    "phocas",
    "sign_guard",
    "sign_majority",
    "smea",
    "squared_distances",
    "static_clip",
    "trimmed_mean",
]
