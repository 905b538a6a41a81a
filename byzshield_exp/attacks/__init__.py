"""WHO LIES, AND HOW: adversaries choose the liars, attacks forge what they send."""

from byzshield_exp.attacks import adversaries
from byzshield_exp.attacks.attack import (
    AttackTraits,
    Setting,
    attack_traits,
    check_arguments,
    forged_files,
    is_declared,
    shares,
    why_idle,
)
from byzshield_exp.attacks.bare import check_attack, check_forged, knowledge_of
from byzshield_exp.attacks.copied import delayed_gradient, mimic
from byzshield_exp.attacks.fang import fang_krum, fang_trimmed_mean
from byzshield_exp.attacks.farthest import min_max, min_sum
from byzshield_exp.attacks.forged import constant, reversed_gradient
from byzshield_exp.attacks.knowledge import Knowledge
from byzshield_exp.attacks.mixed import mixed
from byzshield_exp.attacks.noise import gaussian, gaussian_noise, random_direction, scalar_noise
from byzshield_exp.attacks.optimised import alie_optimised, ipm_optimised
from byzshield_exp.attacks.past import PastParameters
from byzshield_exp.attacks.poisoned import label_flip, label_shuffle
from byzshield_exp.attacks.redundancy import fixed_disagreement, majorities_only
from byzshield_exp.attacks.statistical import alie, alie_z, inner_product_manipulation
from byzshield_exp.attacks.timing import TIMING_KEYS, TimedAdversary, Timing

__all__ = [
    "TIMING_KEYS",
    "AttackTraits",
    "Knowledge",
    "PastParameters",
    "Setting",
    "TimedAdversary",
    "Timing",
    "adversaries",
    "alie",
    "alie_optimised",
    "alie_z",
    "attack_traits",
    "check_arguments",
    "check_attack",
    "check_forged",
    "constant",
    "delayed_gradient",
    "fang_krum",
    "fang_trimmed_mean",
    "fixed_disagreement",
    "forged_files",
    "gaussian",
    "gaussian_noise",
    "inner_product_manipulation",
    "ipm_optimised",
    "is_declared",
    "knowledge_of",
    "label_flip",
    "label_shuffle",
    "majorities_only",
    "mimic",
    "min_max",
    "min_sum",
    "mixed",
    "random_direction",
    "reversed_gradient",
    "scalar_noise",
    "shares",
    "why_idle",
]
