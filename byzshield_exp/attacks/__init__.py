"""WHO LIES, AND HOW: adversaries choose the liars, attacks forge what they send."""

from byzshield_exp.attacks import adversaries
from byzshield_exp.attacks.forged import (
    alie,
    alie_z,
    constant,
    inner_product_manipulation,
    reversed_gradient,
)
from byzshield_exp.attacks.knowledge import Knowledge

__all__ = [
    "Knowledge",
    "adversaries",
    "alie",
    "alie_z",
    "constant",
    "inner_product_manipulation",
    "reversed_gradient",
]
