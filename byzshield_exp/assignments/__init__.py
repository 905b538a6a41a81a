"""WHO COMPUTES WHAT: which worker holds which file."""

from byzshield_exp.assignments.assignment import Assignment
from byzshield_exp.assignments.groups import baseline, fractional_repetition
from byzshield_exp.assignments.mols import mols
from byzshield_exp.assignments.ramanujan import ramanujan_one, ramanujan_two

__all__ = [
    "Assignment",
    "baseline",
    "fractional_repetition",
    "mols",
    "ramanujan_one",
    "ramanujan_two",
]
