"""WHO COMPUTES WHAT: which worker holds which file."""

from byzshield_exp.assignments.arbitrary import custom, random
from byzshield_exp.assignments.assignment import Assignment
from byzshield_exp.assignments.designs import affine_plane, projective_plane, steiner, subsets
from byzshield_exp.assignments.groups import baseline, fractional_repetition
from byzshield_exp.assignments.mols import mols
from byzshield_exp.assignments.ramanujan import ramanujan_one, ramanujan_two

__all__ = [
    "Assignment",
    "affine_plane",
    "baseline",
    "custom",
    "fractional_repetition",
    "mols",
    "projective_plane",
    "ramanujan_one",
    "ramanujan_two",
    "random",
    "steiner",
    "subsets",
]
