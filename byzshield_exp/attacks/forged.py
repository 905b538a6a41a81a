"""What liars send. Every function is ``forge(knowledge) -> rows [m, d]``, a row per asked file.

Rows depend on the file and not on the liar, so colluders send equal bytes for the same file.
"""

from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks.attack import attack_traits
from byzshield_exp.attacks.knowledge import Knowledge


@attack_traits()
def reversed_gradient(knowledge: Knowledge, scale: float = 100.0) -> Float[Tensor, "m d"]:
    """``-scale`` times the file's true gradient; ``scale=1`` is the sign flip.

    Formula: row = -scale g_f.

    Knows: own gradients.

    Args:
        knowledge: what the attacker knows.
        scale: 100 in the DRACO, DETOX and ByzShield codes, 1000 in BTARD's.

    Source: the "rev_grad" of the DRACO, DETOX and ByzShield codes; with scale 1 Allen-Zhu et al.,
    "Byzantine-Resilient Non-Convex Stochastic Gradient Descent", ICLR 2021.
    """
    return -scale * knowledge.own_rows()


@attack_traits()
def constant(knowledge: Knowledge, value: float = -100.0) -> Float[Tensor, "m d"]:
    """``value``, which may be 0, Inf or NaN, in every entry.

    Formula: row[k] = value.

    Knows: nothing.

    Args:
        knowledge: what the attacker knows.
        value: of every entry.

    Source: DRACO, DETOX and ByzShield codes (value -100).
    """
    return knowledge.truth.blank_row().fill_(value).expand(len(knowledge.files), -1)
