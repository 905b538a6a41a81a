"""WHAT TO DO WITH THE WINNERS: robust rules as pure functions of stacked rows.

Every rule is ``rule(rows [n, d], num_corrupt, **options) -> [d]``. ``num_corrupt`` is how many
rows may be forged. No rule modifies its input. A rule whose formula is undefined for
``(n, num_corrupt)`` raises ``ValueError`` with both numbers.
"""

from byzshield_exp.aggregators.coordinates import (
    mean,
    median,
    median_of_means,
    sign_majority,
    trimmed_mean,
)
from byzshield_exp.aggregators.distances import squared_distances
from byzshield_exp.aggregators.geometric import geometric_median
from byzshield_exp.aggregators.neighbours import bulyan, krum, multi_krum

__all__ = [
    "bulyan",
    "geometric_median",
    "krum",
    "mean",
    "median",
    "median_of_means",
    "multi_krum",
    "sign_majority",
    "squared_distances",
    "trimmed_mean",
]
