"""What liars send. Every function is ``forge(knowledge) -> rows [m, d]``, one per asked file.

Rows depend on the file and not on the liar, so colluders send equal bytes for the same file.
"""

from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks.knowledge import Knowledge

_CHUNK = 1 << 14  # coordinates at a time, so that the rows of a chunk stay in the cache


def reversed_gradient(knowledge: Knowledge, scale: float = 100.0) -> Float[Tensor, "m d"]:
    """``-scale`` times the file's true gradient. Knows its own files only.

    Source: the "rev_grad" of the DRACO, DETOX and ByzShield codes (scale 100).
    """
    return -scale * knowledge.own_rows()


def constant(knowledge: Knowledge, value: float = -100.0) -> Float[Tensor, "m d"]:
    """``value`` in every entry. Knows nothing but the size of the network.

    Source: DRACO, DETOX and ByzShield codes (value -100).
    """
    return knowledge.truth.blank_row().fill_(value).expand(len(knowledge.files), -1)


def inner_product_manipulation(knowledge: Knowledge, epsilon: float = 0.1) -> Float[Tensor, "m d"]:
    """``-epsilon`` times the mean of what honest workers send. Knows all gradients.

    The mean runs over (file, honest holder) pairs, as over messages; without redundancy it is
    the mean over honest workers.

    Args:
        knowledge: what the attacker knows.
        epsilon: 0.1 and 0.6 are common; the ByzShield code's "foe" uses 100.

    Source: Xie, Koyejo and Gupta, "Fall of Empires", UAI 2019.
    """
    liars = torch.tensor(knowledge.liars, dtype=torch.int64)
    honest = ~torch.isin(knowledge.assignment.workers_of_file, liars)
    rows = knowledge.all_rows()
    weights = honest.sum(dim=1).to(rows.dtype)
    centre = (weights @ rows) / weights.sum().clamp_min(1)
    return (-epsilon * centre).expand(len(knowledge.files), -1)


def alie(knowledge: Knowledge, z: float | None = None) -> Float[Tensor, "m d"]:
    """Mean plus ``z`` standard deviations, coordinate by coordinate: "a little is enough".

    Mean and (population) standard deviation run over the true gradients of all files. Knows all
    gradients.

    Args:
        knowledge: what the attacker knows.
        z: None means :func:`alie_z` of K and q, counted in workers for every approach. The
            ByzShield and DETOX codes use 1.0.

    Source: Baruch, Baruch and Goldberg, "A Little Is Enough", NeurIPS 2019, Algorithm 3; sign and
    population as in the ByzShield code.
    """
    if z is None:
        z = alie_z(knowledge.assignment.num_workers, len(knowledge.liars))
    forged = knowledge.truth.blank_row()
    pairs = zip(knowledge.all_rows().split(_CHUNK, dim=1), forged.split(_CHUNK), strict=True)
    for rows, part in pairs:  # ten times the speed of torch.std_mean over dimension 0
        centre = rows.mean(dim=0)
        part.copy_(centre + z * (rows - centre).square_().mean(dim=0).sqrt_())
    return forged.expand(len(knowledge.files), -1)


def alie_z(num_workers: int, num_byzantine: int) -> float:
    """``max(0, z_max(K, q))``: the largest shift that hides among the honest.

    ``z_max = Phi^-1((K - q - s) / (K - q))`` with ``s = floor(K / 2 + 1) - q`` supporters needed.

    Raises:
        ValueError: if the liars are a majority, where no shift is too large.

    Source: Baruch et al., NeurIPS 2019, Section 3.
    """
    supporters = num_workers // 2 + 1 - num_byzantine
    if supporters <= 0:
        raise ValueError(
            f"attack.z=null is unbounded at q={num_byzantine} of K={num_workers}: "
            f"it needs q <= {num_workers // 2}, or give a number"
        )
    honest = num_workers - num_byzantine
    share = (honest - supporters) / honest
    return max(0.0, NormalDist().inv_cdf(share)) if share > 0 else 0.0
