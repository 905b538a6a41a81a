"""Local model poisoning of Fang et al., full knowledge, worked out for gradients.

The paper's workers send models, the global model of the step before less a step along the
gradient. An update is minus the learning rate times the aggregate, so a model that is moved
against the direction ``s`` of honest progress is a gradient with the sign of ``s``, which is minus
the sign of the honest mean; the global model itself is the gradient 0.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import squared_distances
from byzshield_exp.attacks.attack import attack_traits
from byzshield_exp.attacks.knowledge import Knowledge


@attack_traits()
def fang_krum(knowledge: Knowledge, threshold: float = 1e-5) -> Float[Tensor, "m d"]:
    """``-lambda`` times the sign of the honest mean, the largest lambda tried that Krum chooses.

    Lambda starts at the paper's upper bound and is halved until Krum, among the rows of the files
    that the liars do not win and one copy for each file that they do, chooses a copy. The search
    ends below ``threshold``: the row is sent though Krum does not choose it.

    Formula: row = -lambda sign(mu), the largest lambda tried for which Krum chooses the row.

    Knows: the defence.

    Args:
        knowledge: what the attacker knows.
        threshold: of lambda, in units of a gradient entry; positive.

    Raises:
        ValueError: if ``threshold`` is not positive.

    Source: Fang, Cao, Jia and Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated
    Learning", USENIX Security 2020, Section 3.2, Theorem 1; the honest mean stands for the
    aggregate before the attack, and d counts the entries whose sign is not 0.
    """
    if not threshold > 0:
        raise ValueError(f"needs threshold > 0, got threshold={threshold}")
    won = set(knowledge.won_files)
    files = [file for file in knowledge.sent_files if file not in won] or knowledge.sent_files
    copies, weights = max(1, len(won)), knowledge.honest_weights()
    squared = squared_distances(knowledge.all_rows())[files][:, files]
    norms, shadows, length = _look(knowledge, files, weights)
    neighbours = max(1, len(files) + copies - knowledge.num_corrupt - 2)
    size = _upper_bound(squared, norms, length, neighbours, copies)
    while size >= threshold:
        to_forged = size**2 * length + 2 * size * shadows + norms
        if _krum_chooses_forged(squared, to_forged.clamp_min(0), copies, neighbours):
            break
        size /= 2
    return knowledge.one_row(lambda rows: -size * _sign(rows, weights))


def _sign(rows: Float[Tensor, "f c"], weights: Float[Tensor, " f"]) -> Float[Tensor, " c"]:
    return (weights.to(rows.device) @ rows.double()).sign()


def _look(
    knowledge: Knowledge, files: list[int], weights: Float[Tensor, " f"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], float]:
    """Squared lengths of the rows, products with the sign, the sign's squared length; float64."""
    device = knowledge.all_rows().device
    norms = torch.zeros(len(files), dtype=torch.float64, device=device)
    shadows, length = torch.zeros_like(norms), 0.0
    for rows in knowledge.chunks():
        honest, sign = rows[files].double(), _sign(rows, weights)
        norms += honest.square().sum(dim=1)
        shadows += honest @ sign
        length += float(sign.square().sum())
    return norms, shadows, length


def _upper_bound(
    squared: Float[Tensor, "n n"],
    norms: Float[Tensor, " n"],
    length: float,
    neighbours: int,
    copies: int,
) -> float:
    """Theorem 1's bound on lambda.

    It divides by the honest neighbours in a copy's score: m - 2c - 1 in the paper, where the copies
    are as many as Krum fears.
    """
    nearest = squared.sort(dim=1).values[:, 1 : 1 + neighbours].sum(dim=1).min()
    honest_neighbours = max(1, neighbours - copies + 1)
    reach = (nearest / honest_neighbours).sqrt() + norms.max().sqrt()
    return float(reach) / math.sqrt(max(1.0, length))


def _krum_chooses_forged(
    squared: Float[Tensor, "n n"], to_forged: Float[Tensor, " n"], copies: int, neighbours: int
) -> bool:
    count = len(squared)
    table = squared.new_zeros((count + copies, count + copies))
    table[:count, :count] = squared
    table[count:, :count] = to_forged
    table[:count, count:] = to_forged.unsqueeze(1)
    scores = table.sort(dim=1).values[:, 1 : 1 + neighbours].sum(dim=1)
    return bool(scores[count:].min() < scores[:count].min())


@attack_traits()
def fang_trimmed_mean(knowledge: Knowledge, b: float = 2.0) -> Float[Tensor, "m d"]:
    """Per coordinate a random number just beyond the honest extreme that lies against the mean.

    Where the honest mean is positive, uniform between the least honest entry ``x`` and ``b * x``
    (``x / b`` if ``x`` is positive); where it is negative, beyond the greatest entry in the same
    way. It works against trimmed mean and median.

    Formula: row[k] uniform between m[k] and b m[k] (or m[k] / b, whichever is farther out), where
        m[k] is min_f g_f[k] if mu[k] >= 0 and max_f g_f[k] otherwise.

    Knows: all honest gradients.

    Args:
        knowledge: what the attacker knows.
        b: at least 1.

    Raises:
        ValueError: if ``b`` is less than 1.

    Source: Fang et al., USENIX Security 2020, Section 3.3 (b = 2).
    """
    if not b >= 1:
        raise ValueError(f"needs b >= 1, got b={b}")
    files, weights = list(knowledge.honest_files), knowledge.honest_weights()

    def extreme(rows: Tensor) -> Tensor:
        honest = rows[files]
        return torch.where(_sign(rows, weights) < 0, honest.amax(dim=0), honest.amin(dim=0))

    near = knowledge.by_coordinate(extreme)
    outwards = knowledge.by_coordinate(
        lambda rows: torch.where(_sign(rows, weights) < 0, 1.0, -1.0)
    )
    far = torch.where(near * outwards > 0, near * b, near / b)
    return knowledge.row_by_row(lambda file: near + _uniform(knowledge, file) * (far - near))


def _uniform(knowledge: Knowledge, file: int) -> Float[Tensor, " d"]:
    blank = knowledge.truth.blank_row()
    numbers = knowledge.generator(file).random(len(blank), dtype="float32")
    return blank.copy_(torch.from_numpy(numbers))
